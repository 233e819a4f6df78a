//! What minicni has in file systems. In a directory that somebody names, only what is known to be ours goes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Removal, say};
use crate::{
    daemon::install::{CONFLIST, PLUGIN, is_ours, temporary},
    datapath::Pins,
    node::StateDir,
};

/// A file or directory that could not be looked at or removed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { action, path, source }
}

/// The network configuration, if it is one of minicni.
pub(super) fn configuration(removal: &mut Removal, directory: &Path) {
    let path = directory.join(CONFLIST);
    match fs::read(&path) {
        Ok(text) if is_ours(&text) => remove(removal, &path),
        Ok(_) => say(format_args!("kept {}, which names no plugin of minicni", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => removal.fail(failed("read", &path)(error)),
    }
    remove(removal, &temporary(&path));
}

/// The plugin.
pub(super) fn plugin(removal: &mut Removal, directory: &Path) {
    let path = directory.join(PLUGIN);
    remove(removal, &path);
    remove(removal, &temporary(&path));
}

/// Programs, maps and links of all versions.
pub(super) fn pins(removal: &mut Removal, pins: &Pins) {
    let is_version = |name: &str| name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    clear(removal, pins.root(), |name| name == "links" || is_version(name));
}

/// Leases, facts and locks.
pub(super) fn state(removal: &mut Removal, state: &StateDir) {
    let is_file = |name: &str| {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "lock" | "new"))
    };
    clear(removal, state.root(), |name| matches!(name, "ipam" | "lock" | "latency") || is_file(name));
}

/// Removes what is ours in a directory, and the directory if nothing else is in it.
fn clear(removal: &mut Removal, directory: &Path, ours: impl Fn(&str) -> bool) {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        entries => removal.found(entries.map_err(failed("list", directory))),
    };
    let mut paths: Vec<_> = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort_unstable();
    let (paths, others): (Vec<_>, Vec<_>) =
        paths.into_iter().partition(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&ours));
    for path in &paths {
        remove(removal, path);
    }
    if !others.is_empty() {
        say(format_args!("kept {}, because there is something else in it", directory.display()));
    } else if !removal.dry_run {
        match fs::remove_dir(directory) {
            // Of what did not go it is said already. In a container it is a mount, and stays empty.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => {}
            Err(error) => removal.fail(failed("remove", directory)(error)),
            Ok(()) => say(format_args!("removed {}", directory.display())),
        }
    }
}

/// Removes a file or a tree, if it is there.
fn remove(removal: &mut Removal, path: &Path) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    removal.remove(path.display(), || {
        let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.map_err(failed("remove", path))
    });
}
