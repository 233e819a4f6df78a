//! Network namespaces: those a runtime hands over, and named ones made here.

use std::{
    any::Any,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

use super::{LinkError, Socket, error::errno_of, link_up};

/// The calling thread's own namespace. `/proc/self` would be that of the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// The loopback device has this index in every namespace.
const LOOPBACK: u32 = 1;

/// An open network namespace; it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Opens the namespace at a path such as `/proc/<pid>/ns/net` or `/run/netns/<name>`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LinkError> {
        let path = path.into();
        // O_NONBLOCK: whatever is there, a FIFO for example, must not hold the caller up.
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) => {
                return Err(match errno_of(&error) {
                    Errno::ENOENT => LinkError::NetnsMissing { path },
                    // A socket, or a device without a driver.
                    Errno::ENXIO => LinkError::NotANamespace { path },
                    errno => LinkError::Netns { call: "open", path, errno },
                });
            }
        };
        match fstatfs(&file) {
            Ok(statistics) if statistics.filesystem_type() == NSFS_MAGIC => Ok(Self { path, file }),
            Ok(_) => Err(LinkError::NotANamespace { path }),
            Err(errno) => Err(LinkError::Netns { call: "fstatfs", path, errno }),
        }
    }

    /// The number of the calling thread's namespace: no other that exists at the same time has it.
    pub fn own_number() -> Result<u64, LinkError> {
        let own = fs::metadata(OWN).map_err(|error| failed("stat", Path::new(OWN), &error))?;
        Ok(own.ino())
    }

    /// Whether this is the namespace of the calling thread.
    pub fn is_own(&self) -> Result<bool, LinkError> {
        let this = self.file.metadata().map_err(|error| failed("fstat", &self.path, &error))?;
        // All of them are on one file system, that of `NSFS_MAGIC`.
        Ok(Self::own_number()? == this.ino())
    }

    /// Runs `work` inside the namespace, on a thread of its own, and returns what it returns. The calling thread stays
    /// where it is. A panic in `work` becomes an error.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LinkError> {
        on_own_thread(&self.path, || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
                // A namespace of another kind.
                Errno::EINVAL => LinkError::NotANamespace { path: self.path.clone() },
                errno => LinkError::Netns { call: "setns", path: self.path.clone(), errno },
            })?;
            Ok(work())
        })
    }

    /// Makes a namespace with its loopback device up and mounts it on `path`, where it stays until
    /// [`Netns::delete_named`]. The file is made; one left behind by a creation that was interrupted is used.
    pub fn create_named(path: impl Into<PathBuf>) -> Result<Self, LinkError> {
        let path = path.into();
        match Self::open(&path) {
            Ok(_) => return Err(LinkError::Netns { call: "create", path, errno: Errno::EEXIST }),
            Err(LinkError::NetnsMissing { .. }) => {
                File::create_new(&path).map_err(|error| failed("create", &path, &error))?;
            }
            Err(LinkError::NotANamespace { .. }) => check_placeholder(&path)?,
            Err(error) => return Err(error),
        }
        on_own_thread(&path, || {
            let step = |call| {
                let path = &path;
                move |errno| LinkError::Netns { call, path: path.clone(), errno }
            };
            unshare(CloneFlags::CLONE_NEWNET).map_err(step("unshare"))?;
            Socket::open()?.batch(vec![link_up(LOOPBACK)])?;
            mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(step("mount"))
        })?;
        Self::open(path)
    }

    /// Unmounts a namespace of [`Netns::create_named`] and removes its file; with its last process and descriptor it then
    /// ends. That it is gone already is success. Any other file is left alone.
    pub fn delete_named(path: &Path) -> Result<(), LinkError> {
        loop {
            match Self::open(path) {
                Ok(_) => umount2(path, MntFlags::MNT_DETACH).map_err(|errno| LinkError::Netns {
                    call: "umount",
                    path: path.to_owned(),
                    errno,
                })?,
                Err(LinkError::NetnsMissing { .. }) => return Ok(()),
                Err(LinkError::NotANamespace { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        check_placeholder(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("unlink", path, &error)),
            _ => Ok(()),
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A namespace is mounted on an empty regular file; anything else is somebody's.
fn check_placeholder(path: &Path) -> Result<(), LinkError> {
    let metadata = fs::symlink_metadata(path).map_err(|error| failed("lstat", path, &error))?;
    if metadata.is_file() && metadata.len() == 0 {
        Ok(())
    } else {
        Err(LinkError::NotANamespace { path: path.to_owned() })
    }
}

/// A thread can enter a namespace without the rest of the process; it must end there, not return to other work.
fn on_own_thread<T: Send>(path: &Path, work: impl FnOnce() -> Result<T, LinkError> + Send) -> Result<T, LinkError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| failed("start a thread", path, &error))?;
        worker.join().unwrap_or_else(|panic| {
            Err(LinkError::Panicked { path: path.to_owned(), message: panic_message(panic.as_ref()) })
        })
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

fn failed(call: &'static str, path: &Path, error: &io::Error) -> LinkError {
    LinkError::Netns { call, path: path.to_owned(), errno: errno_of(error) }
}
