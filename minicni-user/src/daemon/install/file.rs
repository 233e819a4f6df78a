//! Files that others read or execute at any moment: they see the old or the new one.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{InstallError, failed};

/// The name that a file has until it is complete. In the same directory: containerd notices the renaming of a file there,
/// and would not notice one that comes from elsewhere. Runtimes read what ends in `.conf`, `.conflist` or `.json`, so this
/// does not.
pub fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Whether a file has these contents and this mode.
pub(super) fn is(path: &Path, contents: &[u8], mode: u32) -> Result<bool, InstallError> {
    let compare = || -> io::Result<bool> {
        let metadata = fs::metadata(path)?;
        let alike = metadata.permissions().mode() & 0o7777 == mode && metadata.len() == contents.len() as u64;
        Ok(alike && fs::read(path)? == contents)
    };
    match compare() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        compared => compared.map_err(failed("compare", path)),
    }
}

/// Writes a file, and its directory where there is none. A program that is being executed keeps running.
pub(super) fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), InstallError> {
    let temporary = temporary(path);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let write = || {
        fs::create_dir_all(directory)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(contents)?;
        // Whatever the umask is, or the mode of one that was left behind.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        // Until it is closed, the kernel refuses to execute it.
        drop(file);
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        failed("write", path)(source)
    })
}
