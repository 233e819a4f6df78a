//! The file of Node objects, and when it changed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::{Interest, unix::AsyncFd};

use super::debounce::Debounce;
use super::nodes::{self, Node, NodesError};

const QUIET: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(1);
/// How often a directory that is not there is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// A mounted `ConfigMap` changes by renaming this symlink, which all its files go through:
/// <https://pkg.go.dev/k8s.io/kubernetes/pkg/volume/util#AtomicWriter>.
const CONFIG_MAP_DATA: &str = "..data";

/// Why the file of nodes cannot be used or watched. The nodes read before stay valid.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Opening or reading failed; also if it is not a regular file, or not UTF-8.
    #[error("cannot read the nodes file {path}: {source}; the nodes known so far stay in use")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is there, but what it says is wrong.
    #[error("the nodes file {path} is not used: {source}; the nodes known so far stay in use")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<NodesError>,
    },
    /// inotify refuses.
    #[error(
        "cannot watch the nodes file {path}: {source}; for \"too many open files\" raise \
         fs.inotify.max_user_instances, for \"no space left\" fs.inotify.max_user_watches"
    )]
    Watch {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Reads and checks the file.
pub fn read(path: &Path) -> Result<Vec<Node>, FileError> {
    let text = read_regular(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    nodes::parse(&text).map_err(|source| FileError::Malformed { path: path.to_owned(), source: source.into() })
}

/// Opening a FIFO would block the daemon.
fn read_regular(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    std::fs::read_to_string(path)
}

/// Tells when the file changed: written in place, renamed over, removed, created, or swapped as a symlink is.
///
/// It watches the directory the file is in, not the file, which may not exist. It does not see a change behind the
/// daemon's own mount of a single file, or inside a directory that a symlink leads to; read the file on a timer too.
#[derive(Debug)]
pub struct NodesFile {
    path: PathBuf,
    directory: PathBuf,
    name: OsString,
    inotify: AsyncFd<InotifyFd>,
    watching: bool,
    changes: Debounce,
}

impl NodesFile {
    /// Starts to watch; `path` need not exist, nor its directory. Needs a tokio runtime.
    pub fn watch(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Watch { path: path.to_owned(), source };
        let name = path.file_name().ok_or_else(|| failed(io::Error::other("the path does not end in a file name")))?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let inotify = InotifyFd(inotify.map_err(|errno| failed(errno.into()))?);
        // SAFETY: `InotifyFd` owns its descriptor, always returns the same, and is not exchanged while registered.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
        let mut file = Self {
            path: path.to_owned(),
            directory: directory.to_owned(),
            name: name.to_owned(),
            inotify: inotify.map_err(|error| failed(error.into()))?,
            watching: false,
            changes: Debounce::new(QUIET, LIMIT),
        };
        match file.watch_directory() {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(file),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Waits until the file changed and has been left alone for 50 ms (at most 1 s). Dropping the future loses nothing.
    pub async fn next_change(&mut self) -> Result<(), FileError> {
        while !self.changes.fire() {
            if !self.watching {
                if self.watch_directory().is_ok() {
                    self.changes.mark();
                } else {
                    tokio::select! {
                        () = self.changes.wait() => {}
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
                continue;
            }
            tokio::select! {
                () = self.changes.wait() => {}
                events = read_events(&self.inotify) => {
                    let events = events.map_err(|source| FileError::Watch { path: self.path.clone(), source })?;
                    for event in &events {
                        self.note(event);
                    }
                }
            }
        }
        Ok(())
    }

    fn watch_directory(&mut self) -> Result<(), Errno> {
        // Not IN_MODIFY: a file that is still being written would be read half. The writer closes it in the end.
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        self.inotify.get_ref().0.add_watch(&self.directory, events)?;
        self.watching = true;
        Ok(())
    }

    fn note(&mut self, event: &InotifyEvent) {
        match &event.name {
            Some(name) if *name == self.name || name == OsStr::new(CONFIG_MAP_DATA) => {
                // A new regular file is complete when it is closed; a symlink is when it is created.
                let is_link = || self.directory.join(name).symlink_metadata().is_ok_and(|entry| entry.is_symlink());
                if event.mask != AddWatchFlags::IN_CREATE || is_link() {
                    self.changes.mark();
                }
            }
            Some(_) => {}
            // About the directory (moved away, deleted, unmounted) or about the queue (overflow).
            None => {
                if event.mask.contains(AddWatchFlags::IN_MOVE_SELF) {
                    // The kernel answers with IN_IGNORED.
                    let _ = self.inotify.get_ref().0.rm_watch(event.wd);
                }
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.watching = false;
                }
                self.changes.mark();
            }
        }
    }
}

async fn read_events(inotify: &AsyncFd<InotifyFd>) -> io::Result<Vec<InotifyEvent>> {
    loop {
        let mut ready = inotify.readable().await?;
        if let Ok(events) = ready.try_io(|inotify| inotify.get_ref().0.read_events().map_err(io::Error::from)) {
            return events;
        }
    }
}

/// What tokio asks for, and nix's type does not have.
#[derive(Debug)]
struct InotifyFd(Inotify);

impl AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
