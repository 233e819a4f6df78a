use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

/// What can go wrong with programs, maps and pins.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The directory for the pins is not on a bpf file system.
    #[error("bpfDir {} is not on a bpf file system; mount one there (mount -t bpf bpf /sys/fs/bpf) or name another", dir.display())]
    NotBpffs {
        /// The directory.
        dir: PathBuf,
    },
    /// A directory or pin could not be made, renamed or looked at.
    #[error("{action} {}: {source}", path.display())]
    Pin {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be pinned.
    #[error("pin {}: {source}", path.display())]
    PinProgram {
        /// Under which name.
        path: PathBuf,
        /// Why it failed.
        source: PinError,
    },
    /// The kernel did not take the object.
    #[error("load the eBPF object: {source}")]
    Load {
        /// Why it failed.
        #[from]
        source: EbpfError,
    },
    /// The kernel's verifier or loader refused a program.
    #[error("load program {name}: {source}")]
    Program {
        /// Which program.
        name: &'static str,
        /// Why it failed.
        source: ProgramError,
    },
    /// The object has no such program of the right type: it was built from other sources.
    #[error("the eBPF object has no classifier named {name}; rebuild it with `cargo xtask build-ebpf`")]
    NoProgram {
        /// Which program.
        name: &'static str,
    },
    /// A pinned program could not be opened.
    #[error("open pinned program {}: {source}", path.display())]
    OpenProgram {
        /// Its pin.
        path: PathBuf,
        /// Why it failed.
        source: ProgramError,
    },
    /// A program could not be attached to an interface, or what is attached there not be seen.
    #[error("{action} interface {interface}: {source}")]
    Attach {
        /// What was attempted.
        action: &'static str,
        /// Where.
        interface: String,
        /// Why it failed.
        source: Box<ProgramError>,
    },
    /// The pinned link between a program and an interface could not be opened.
    #[error("open pinned link {}: {source}; remove it, and minicnid attaches its program anew", path.display())]
    Link {
        /// Its pin.
        path: PathBuf,
        /// Why it failed.
        source: Box<LinkError>,
    },
    /// A pinned map could not be opened, read or written.
    #[error("{action} map {}: {source}", path.display())]
    Map {
        /// What was attempted.
        action: &'static str,
        /// Its pin.
        path: PathBuf,
        /// Why it failed.
        source: MapError,
    },
    /// A pinned map has another shape than the programs expect.
    #[error(
        "pinned map {} has {property} {found}, not {expected}: another version of minicni left it; \
         remove it when no pod uses it any more", path.display()
    )]
    Shape {
        /// Its pin.
        path: PathBuf,
        /// What differs.
        property: &'static str,
        /// What the pinned map has.
        found: u64,
        /// What the object declares.
        expected: u64,
    },
}

impl DatapathError {
    /// Whether the pin that was to be opened does not exist: nobody has loaded the programs since boot.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::OpenProgram { path, .. } | Self::Map { path, .. } => !path.exists(),
            _ => false,
        }
    }
}
