//! cgroups by name, in every hierarchy that is mounted: one in version 2, many in version 1.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How long what was in them may take to end.
const LIMIT: Duration = Duration::from_secs(20);

/// Where cgroups are mounted.
pub(super) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mut hierarchies = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).filter(|_| right.starts_with("cgroup")) else { continue };
        hierarchies.push(PathBuf::from(mount));
    }
    Ok(hierarchies)
}

/// Makes a cgroup in a hierarchy.
pub(super) fn make(hierarchy: &Path, name: &str) -> Result<()> {
    let dir = hierarchy.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("create the cgroup {}", dir.display()))?;
    // In version 1, a cgroup without them takes no process.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(all) = fs::read_to_string(hierarchy.join(file)) {
            fs::write(dir.join(file), all.trim_end())?;
        }
    }
    Ok(())
}

/// Removes a cgroup, and those in it, from every hierarchy. What was in them may still be ending.
pub(super) fn remove(name: &str) -> Result<()> {
    let start = Instant::now();
    for hierarchy in hierarchies()? {
        let dir = hierarchy.join(name);
        while let Err(error) = remove_directories(&dir) {
            if start.elapsed() > LIMIT {
                return Err(error).with_context(|| format!("remove the cgroup {}", dir.display()));
            }
            sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Removes a tree of directories, whose files are the kernel's and go with them.
fn remove_directories(dir: &Path) -> Result<()> {
    for entry in super::entries(dir)?.iter().filter(|entry| entry.is_dir()) {
        remove_directories(entry)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
