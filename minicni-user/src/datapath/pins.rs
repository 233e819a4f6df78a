use std::{
    fs,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::programs::ProgramError;
use minicni_common::names::{EGRESS, INGRESS, LAYOUT_VERSION, MapName};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{DatapathError, syscall};

/// Where programs and maps are pinned: `<bpfDir>/<layout version>/`, and links to uplinks: `<bpfDir>/links/`.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    dir: PathBuf,
    links: PathBuf,
}

impl Pins {
    /// The pins below `bpf_dir`, which need not exist yet.
    pub fn new(bpf_dir: &Path) -> Self {
        Self { root: bpf_dir.to_owned(), dir: bpf_dir.join(LAYOUT_VERSION), links: bpf_dir.join("links") }
    }

    /// The directory in which those of all layout versions are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the pins.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The pin of a map.
    pub fn map(&self, map: MapName) -> PathBuf {
        self.dir.join(map.pin)
    }

    /// The pin of a program, [`INGRESS`] or [`EGRESS`].
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The directory of the links to uplinks. One for all layout versions, so that a new version's programs replace the old
    /// ones where these are attached.
    pub fn links(&self) -> &Path {
        &self.links
    }

    /// Fails where the directory is not, or would not be, on a bpf file system. Changes nothing.
    pub fn check(&self) -> Result<(), DatapathError> {
        let existing = self.dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        match statfs(existing) {
            Ok(stat) if stat.filesystem_type() == BPF_FS_MAGIC => Ok(()),
            _ => Err(DatapathError::NotBpffs { dir: self.dir.clone() }),
        }
    }

    /// Removes the pins of the programs; what is attached stays until it is detached. The maps stay, too.
    pub fn remove_programs(&self) -> Result<(), DatapathError> {
        for name in [INGRESS, EGRESS] {
            let path = self.program(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DatapathError::Pin { action: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the directories; fails as [`Pins::check`].
    pub(super) fn create_dir(&self) -> Result<(), DatapathError> {
        self.check()?;
        for dir in [&self.dir, &self.links] {
            fs::create_dir_all(dir).map_err(|source| DatapathError::Pin {
                action: "create directory",
                path: dir.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Opens the two pinned programs. [`DatapathError::is_missing`] tells whether they were never loaded.
    pub fn open_programs(&self) -> Result<Programs, DatapathError> {
        Ok(Programs { ingress: self.open_program(INGRESS)?, egress: self.open_program(EGRESS)? })
    }

    // Not `SchedClassifier::from_pin`, which probes the kernel for features and takes ten times as long.
    fn open_program(&self, name: &str) -> Result<Program, DatapathError> {
        let path = self.program(name);
        let open = || -> Result<Program, ProgramError> {
            let fd = syscall::open_pin(&path)?;
            Ok(Program { id: syscall::program_id(fd.as_fd())?, fd })
        };
        open().map_err(|source| DatapathError::OpenProgram { path, source })
    }
}

/// The two programs, open.
#[derive(Debug)]
pub struct Programs {
    ingress: Program,
    egress: Program,
}

#[derive(Debug)]
struct Program {
    id: u32,
    fd: OwnedFd,
}

impl Programs {
    /// For packets that enter the host.
    pub fn ingress(&self) -> BorrowedFd<'_> {
        self.ingress.fd.as_fd()
    }

    /// For packets that the stack delivers.
    pub fn egress(&self) -> BorrowedFd<'_> {
        self.egress.fd.as_fd()
    }

    /// The kernel's ids of the programs: ingress, egress.
    pub fn ids(&self) -> (u32, u32) {
        (self.ingress.id, self.egress.id)
    }
}
