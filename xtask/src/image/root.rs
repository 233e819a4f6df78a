//! The files of an image.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// What a path is.
#[derive(Debug)]
pub(super) enum Entry {
    /// A file, with its mode.
    File(Vec<u8>, u32),
    /// A symbolic link.
    Link(PathBuf),
}

/// Files and links by their paths, which do not begin with a slash. Directories are where files are.
#[derive(Debug, Default)]
pub(super) struct Root {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Root {
    /// Adds a copy of a file, executable where that is.
    pub(super) fn add(&mut self, source: &Path, path: impl Into<PathBuf>) -> Result<()> {
        let read = || Ok::<_, std::io::Error>((fs::read(source)?, fs::metadata(source)?.permissions().mode()));
        let (contents, mode) = read().with_context(|| format!("read {}", source.display()))?;
        // The umask of whoever built or installed it does not matter.
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        self.entries.insert(path.into(), Entry::File(contents, mode));
        Ok(())
    }

    /// Adds a file with these contents.
    pub(super) fn add_text(&mut self, path: &str, text: String) {
        self.entries.insert(path.into(), Entry::File(text.into_bytes(), 0o644));
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        self.entries.insert(path.into(), Entry::Link(target.into()));
    }

    /// The entries in the order of their paths.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The directories, those above others first.
    pub(super) fn directories(&self) -> Vec<&Path> {
        let parents = self.entries.keys().flat_map(|path| path.ancestors().skip(1));
        let mut directories: Vec<_> = parents.filter(|path| !path.as_os_str().is_empty()).collect();
        directories.sort_unstable();
        directories.dedup();
        directories
    }

    /// Writes everything below a directory, which is made.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        for (path, entry) in &self.entries {
            let path = directory.join(path);
            let write = || {
                fs::create_dir_all(path.parent().unwrap_or(directory))?;
                match entry {
                    Entry::Link(target) => symlink(target, &path),
                    Entry::File(contents, mode) => {
                        fs::write(&path, contents)?;
                        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
                    }
                }
            };
            write().with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}
