//! TCX links (Linux 6.6): programs on interfaces that we share with others.
//!
//! A link is pinned, so that it outlives the daemon; replacing its program is atomic. Attaching one, and taking one off, waits
//! for an RCU grace period, so it is for interfaces that stay.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::TcAttachOptions,
    },
    sys::SyscallError,
};
use minicni_common::names::{EGRESS, INGRESS};
use nix::errno::Errno;

use super::{DatapathError, Pins, syscall};

/// A hook, and with it the program that belongs there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    fn program(self) -> &'static str {
        match self {
            Self::Ingress => INGRESS,
            Self::Egress => EGRESS,
        }
    }

    fn kind(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of linux/bpf.h.
    fn number(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }

    fn pin(self, pins: &Pins, ifindex: u32) -> PathBuf {
        pins.links().join(format!("{ifindex}-{}", self.program()))
    }
}

/// The hooks with the ids of the pinned programs.
fn hooks(pins: &Pins) -> Result<[(Hook, u32); 2], DatapathError> {
    let (ingress, egress) = pins.open_programs()?.ids();
    Ok([(Hook::Ingress, ingress), (Hook::Egress, egress)])
}

/// Attaches the pinned programs to both hooks of an interface, behind those of others: what they drop is never seen here,
/// and what they change is seen changed. Programs attached before are replaced. Where nothing has to change, nothing is done.
///
/// Says whether the kernel has TCX.
pub fn attach_tcx(pins: &Pins, ifindex: u32, name: &str) -> Result<bool, DatapathError> {
    for (hook, id) in hooks(pins)? {
        let Some(attached) = query(ifindex, name, hook)? else { return Ok(false) };
        let pin = hook.pin(pins, ifindex);
        if attached.contains(&id) && pin.exists() {
            continue;
        }
        if !update(pins, hook, &pin, name)? {
            create(pins, hook, &pin, name)?;
        }
    }
    Ok(true)
}

/// Whether both hooks of an interface have the pinned programs by links of ours.
pub fn has_tcx(pins: &Pins, ifindex: u32, name: &str) -> Result<bool, DatapathError> {
    for (hook, id) in hooks(pins)? {
        if !query(ifindex, name, hook)?.is_some_and(|attached| attached.contains(&id))
            || !hook.pin(pins, ifindex).exists()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes our programs off an interface, which may be gone already; those of others stay.
pub fn detach_tcx(pins: &Pins, ifindex: u32) -> Result<(), DatapathError> {
    [Hook::Ingress, Hook::Egress].into_iter().try_for_each(|hook| remove(&hook.pin(pins, ifindex)))
}

/// The interfaces to which links are pinned; some of these may be gone.
pub fn links(pins: &Pins) -> Result<BTreeSet<u32>, DatapathError> {
    let entries = match fs::read_dir(pins.links()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(pin_error("list", pins.links()))?,
    };
    let ifindex = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.split('-').next()?.parse().ok();
    Ok(entries.filter_map(ifindex).collect())
}

/// The ids of all programs on a hook; `None` where the kernel has no TCX.
fn query(ifindex: u32, name: &str, hook: Hook) -> Result<Option<Vec<u32>>, DatapathError> {
    match syscall::program_ids(ifindex, hook.number()) {
        Ok(programs) => Ok(Some(programs)),
        Err(error) if is(&error, Errno::EINVAL) => Ok(None),
        Err(error) => Err(attach_error("look for programs on", name)(error.into())),
    }
}

/// Replaces the program of a pinned link. `false` where there is none, or its interface is gone: another one may have its
/// index now.
fn update(pins: &Pins, hook: Hook, pin: &Path, name: &str) -> Result<bool, DatapathError> {
    let link = match PinnedLink::from_pin(pin) {
        Err(LinkError::SyscallError(error)) if is(&error, Errno::ENOENT) => return Ok(false),
        link => FdLink::from(link.map_err(link_error(pin))?).try_into().map_err(link_error(pin))?,
    };
    match open(pins, hook)?.attach_to_link(link) {
        Ok(_) => Ok(true),
        Err(ProgramError::SyscallError(error)) if is(&error, Errno::ENOLINK) => {
            remove(pin)?;
            Ok(false)
        }
        Err(error) => Err(attach_error("replace the program on", name)(error)),
    }
}

fn create(pins: &Pins, hook: Hook, pin: &Path, name: &str) -> Result<(), DatapathError> {
    let failed = |error| attach_error("attach a program to", name)(error);
    let mut program = open(pins, hook)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::last());
    let id = program.attach_with_options(name, hook.kind(), options).map_err(failed)?;
    // Until it is pinned, the link is this process's alone, and goes with it.
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(link_error(pin))?;
    link.pin(pin).map(drop).map_err(|source| DatapathError::PinProgram { path: pin.to_owned(), source })
}

fn open(pins: &Pins, hook: Hook) -> Result<SchedClassifier, DatapathError> {
    let path = pins.program(hook.program());
    SchedClassifier::from_pin(&path).map_err(|source| DatapathError::OpenProgram { path, source })
}

fn remove(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error("remove", pin)(error)),
        _ => Ok(()),
    }
}

fn pin_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DatapathError {
    let path = path.to_owned();
    move |source| DatapathError::Pin { action, path, source }
}

fn attach_error(action: &'static str, interface: &str) -> impl FnOnce(ProgramError) -> DatapathError {
    let interface = interface.to_owned();
    move |source| DatapathError::Attach { action, interface, source: Box::new(source) }
}

fn link_error(pin: &Path) -> impl FnOnce(LinkError) -> DatapathError {
    let path = pin.to_owned();
    move |source| DatapathError::Link { path, source: Box::new(source) }
}

fn is(error: &SyscallError, errno: Errno) -> bool {
    error.io_error.raw_os_error() == Some(errno as i32)
}
