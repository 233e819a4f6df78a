//! Notices that somebody changed the runtime's directories.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    unistd::read,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{super::debounce::Debounce, Options};

const QUIET: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(1);

/// The directories into which is installed. What inotify misses, the daemon's timer finds.
pub(in crate::daemon) struct Watch {
    directories: Vec<PathBuf>,
    inotify: Inotify,
    readable: AsyncFd<OwnedFd>,
    changes: Debounce,
}

impl Watch {
    /// Needs a tokio runtime.
    pub(in crate::daemon) fn new(options: &Options) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let descriptor = inotify.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned by what is registered, and lives as long.
        let readable = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self {
            directories: [&options.bin_dir, &options.conf_dir].into_iter().flatten().cloned().collect(),
            readable,
            inotify,
            changes: Debounce::new(QUIET, LIMIT),
        })
    }

    /// Waits until a file in one of the directories changed and they have been left alone for 50 ms (at most 1 s). Dropping
    /// the future loses nothing.
    pub(in crate::daemon) async fn changed(&mut self) {
        self.watch();
        while !self.changes.fire() {
            tokio::select! {
                () = self.changes.wait() => {}
                drained = drain(&self.readable) => match drained {
                    Ok(()) => self.changes.mark(),
                    // Nothing more will come of it.
                    Err(_) => std::future::pending().await,
                }
            }
        }
    }

    /// Each time anew, because a directory that was removed and made again is another one. One that cannot be watched is
    /// not there yet, or is looked at by timer.
    fn watch(&self) {
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        for directory in &self.directories {
            let _ = self.inotify.add_watch(directory, events);
        }
    }
}

/// Waits for events, and takes them all. Which they are does not matter.
async fn drain(readable: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = readable.readable().await?;
        let mut buffer = [0; 4096];
        let taken = ready.try_io(|inotify| match read(inotify.get_ref(), &mut buffer) {
            Err(Errno::EINTR) => Ok(0),
            result => result.map_err(io::Error::from),
        });
        match taken {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}
