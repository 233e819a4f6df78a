//! The few things done to files, each of which either happened or did not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

#[cfg(test)]
use super::fault;
use super::{IpamError, Result};

/// Names with this first character are half of something that was killed.
const TEMPORARY: char = '.';

/// Creates a directory and those above it, for root alone.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    let make = || {
        #[cfg(test)]
        fault::step()?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    };
    make().map_err(failed("create directory", path))
}

/// Waits for the lock and holds it until the file is dropped, or the process dies.
pub(super) fn lock(path: &Path) -> Result<File> {
    let take = || {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        loop {
            match file.lock() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done.map(|()| file),
            }
        }
    };
    take().map_err(failed("lock", path))
}

/// As [`lock`], of one byte of a file, which need not be that long: a lock for each of many things.
pub(super) fn lock_byte(path: &Path, byte: u64) -> Result<File> {
    take_byte(path, byte, true).map_err(failed("lock", path))
}

/// As [`lock_byte`], but does not wait: `None` while somebody else holds it.
pub(super) fn try_lock_byte(path: &Path, byte: u64) -> Result<Option<File>> {
    match take_byte(path, byte, false) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        done => done.map(Some).map_err(failed("lock", path)),
    }
}

fn take_byte(path: &Path, byte: u64, wait: bool) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    #[expect(clippy::cast_possible_truncation, reason = "the constants are 1 and 0")]
    let range = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte.cast_signed(),
        l_len: 1,
        l_pid: 0,
    };
    loop {
        match fcntl(&file, if wait { FcntlArg::F_OFD_SETLKW(&range) } else { FcntlArg::F_OFD_SETLK(&range) }) {
            Err(Errno::EINTR) => {}
            // What POSIX allows for a lock that somebody holds, beside EAGAIN.
            Err(Errno::EACCES) => return Err(ErrorKind::WouldBlock.into()),
            done => return Ok(done.map(|_| file)?),
        }
    }
}

/// The contents of a file, `None` if there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    #[cfg(test)]
    fault::count_read();
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        contents => contents.map(Some),
    }
}

/// Writes a file or leaves it as it was. Only for the holder of the lock: the temporary name is always the same, so
/// that whoever is killed leaves no more than one.
pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let temporary = path.with_file_name(".new");
    let write = || {
        #[cfg(test)]
        fault::step()?;
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        #[cfg(test)]
        fault::tear(&mut file, contents)?;
        file.write_all(contents)?;
        file.sync_all()?;
        #[cfg(test)]
        fault::step()?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed("write", path))
}

/// The text of a symlink, `None` if there is none. What is not a symlink has an empty text.
pub(super) fn read_link(path: &Path) -> Result<Option<String>> {
    match fs::read_link(path) {
        Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(Some(String::new())),
        Err(error) => Err(failed("read symlink", path)(error)),
    }
}

/// Creates a symlink, or replaces the one that is there.
pub(super) fn replace_link(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_file_name(".new-link");
    let write = || {
        #[cfg(test)]
        fault::step()?;
        match symlink(text, &temporary) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&temporary)?;
                symlink(text, &temporary)?;
            }
            done => done?,
        }
        #[cfg(test)]
        fault::step()?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed("write symlink", path))
}

/// Creates a symlink where there is none.
pub(super) fn make_link(path: &Path, text: &str) -> Result<()> {
    let write = || {
        #[cfg(test)]
        fault::step()?;
        symlink(text, path)
    };
    write().map_err(failed("create symlink", path))
}

/// Removes a file or symlink, if there is one.
pub(super) fn remove(path: &Path) -> Result<()> {
    let unlink = || {
        #[cfg(test)]
        fault::step()?;
        fs::remove_file(path)
    };
    match unlink() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(failed("remove", path)),
    }
}

/// The names in a directory, sorted, without temporary ones and without such that are not UTF-8, which nothing here
/// ever writes.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    each_name(dir, |name| names.push(name.to_owned()))?;
    names.sort_unstable();
    Ok(names)
}

/// As [`names`], in no order.
pub(super) fn each_name(dir: &Path, mut visit: impl FnMut(&str)) -> Result<()> {
    let mut list = || -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            if let Some(name) = entry?.file_name().to_str().filter(|name| !name.starts_with(TEMPORARY)) {
                visit(name);
            }
        }
        Ok(())
    };
    list().map_err(failed("list", dir))
}

/// Whether there is anything in a directory.
pub(super) fn any_name(dir: &Path) -> Result<bool> {
    let look = || -> io::Result<bool> {
        for entry in fs::read_dir(dir)? {
            if entry?.file_name().to_str().is_some_and(|name| !name.starts_with(TEMPORARY)) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    look().map_err(failed("list", dir))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IpamError {
    move |source| IpamError::Io { action, path: path.to_owned(), source }
}
