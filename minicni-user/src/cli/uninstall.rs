//! `minicnid uninstall`: takes minicni off a node.
//!
//! The network configuration goes first, so that no pod comes any more. The rest goes only when no pod of ours is left,
//! because it is what pods live on, and what their DEL needs. Whatever is killed half way is finished by the next run.

mod files;
mod network;

use std::{
    fmt,
    fs::{File, TryLockError},
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::Directories;
use crate::node::{Facts, NodeError, StateDir};

/// `minicnid uninstall`.
#[derive(Args, Debug)]
pub(super) struct Uninstall {
    /// Remove everything although there are pods: they are detached, and have no network any more
    #[arg(long)]
    force: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// The container runtime's directory of plugins
    #[arg(long, value_name = "DIR", env = "MINICNI_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// The container runtime's directory of network configurations
    #[arg(long, value_name = "DIR", env = "MINICNI_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    #[command(flatten)]
    directories: Directories,
}

/// Why nothing may be removed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(
        "minicnid runs here and would put everything back; stop it first: delete its DaemonSet, or \
         `systemctl disable --now minicnid`"
    )]
    Daemon,
    #[error("lock the state directory: {0}")]
    Lock(std::io::Error),
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Removes one thing after the other, and says so. What fails is told, and the others go all the same.
struct Removal {
    dry_run: bool,
    /// Whether all is gone.
    complete: bool,
}

impl Removal {
    fn remove<E: fmt::Display>(&mut self, what: impl fmt::Display, remove: impl FnOnce() -> Result<(), E>) {
        if self.dry_run {
            self.complete = false;
            say(format_args!("would remove {what}"));
            return;
        }
        match remove() {
            Ok(()) => say(format_args!("removed {what}")),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: impl fmt::Display) {
        self.complete = false;
        eprintln!("minicnid: {error}");
    }

    /// What could be found out; else that is what failed.
    fn found<T, E: fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.fail(error)).ok()
    }
}

/// A reader that went away is no error.
fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub(super) fn run(arguments: &Uninstall) -> ExitCode {
    let (state, pins) = (arguments.directories.state(), arguments.directories.pins());
    let _no_daemon = match claim(&state) {
        Ok(lock) => lock,
        Err(refusal) => {
            eprintln!("minicnid: {refusal}");
            return ExitCode::FAILURE;
        }
    };
    let mut removal = Removal { dry_run: arguments.dry_run, complete: true };
    files::configuration(&mut removal, &arguments.cni_conf_dir);
    let Some(pods) = removal.found(network::pods()) else { return ExitCode::FAILURE };
    if !pods.is_empty() && !arguments.force {
        let pods: Vec<_> = pods.iter().map(network::Pod::to_string).collect();
        say(format_args!(
            "kept everything else, because pods are attached: {}\nDelete these pods and run this again. With --force it \
             takes their network away.",
            pods.join(", ")
        ));
        return ExitCode::FAILURE;
    }
    network::detach(&mut removal, &state, &pins, &pods);
    network::routes(&mut removal);
    network::uplinks(&mut removal, &pins);
    network::tunnel(&mut removal);
    network::firewall(&mut removal);
    files::pins(&mut removal, &pins);
    files::state(&mut removal, &state);
    files::plugin(&mut removal, &arguments.cni_bin_dir);
    if removal.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Keeps daemons away until the file is dropped. Makes no state directory where there is none.
fn claim(state: &StateDir) -> Result<Option<File>, Refusal> {
    if !state.root().exists() {
        return Ok(None);
    }
    Facts::check_home(state)?;
    let file = state.daemon_lock()?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Refusal::Daemon),
        Err(TryLockError::Error(error)) => Err(Refusal::Lock(error)),
    }
}
