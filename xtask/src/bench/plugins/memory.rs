//! The plugins' state in memory, where `/run` of a real node is.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{TMPFS_MAGIC, statfs},
};

/// Directories that are in memory until this is dropped.
#[derive(Debug)]
pub(in crate::bench) struct InMemory {
    mounts: Vec<PathBuf>,
}

impl InMemory {
    /// Makes the directories, and puts them into memory where they are not.
    pub(in crate::bench) fn new(directories: &[PathBuf]) -> Result<Self> {
        let mut this = Self { mounts: Vec::new() };
        for directory in directories {
            let words = || format!("put {} into memory", directory.display());
            fs::create_dir_all(directory).with_context(words)?;
            if statfs(directory).with_context(words)?.filesystem_type() != TMPFS_MAGIC {
                mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>).with_context(words)?;
                this.mounts.push(directory.clone());
            }
        }
        Ok(this)
    }

    /// Removes what a run that was killed left of them.
    pub(in crate::bench) fn remove_left(directories: &[PathBuf]) {
        for directory in directories {
            // What is not a mount is an error, and nothing else is done to it.
            while umount2(directory, MntFlags::MNT_DETACH).is_ok() {}
        }
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        for directory in &self.mounts {
            if let Err(errno) = umount2(directory, MntFlags::MNT_DETACH) {
                eprintln!("unmount {}: {errno}", directory.display());
            }
        }
    }
}
