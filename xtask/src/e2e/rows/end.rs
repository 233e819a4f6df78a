//! The end: what the cluster was made of is gone.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, bail};

use super::super::{
    CLUSTER,
    bed::Bed,
    report::{Outcome, rounded},
};
use crate::lab::kubernetes::cluster;

/// Removes the cluster and looks for what is left.
pub(in crate::e2e) fn run(bed: Bed) -> Outcome {
    let start = Instant::now();
    drop(bed);
    let result = nothing_is_left().map_err(|error| format!("{error:#}"));
    let title = "nothing is left: no process, namespace, cgroup, mount or file";
    Outcome { name: "end", title, result, seconds: rounded(start.elapsed()), fast_percent: None }
}

fn nothing_is_left() -> Result<String> {
    // Again, for the error that a drop only prints.
    cluster::clean(CLUSTER)?;
    let dir = cluster::directory(CLUSTER);
    if dir.exists() {
        bail!("{} is there", dir.display());
    }
    let mut places = vec![Path::new("/run/netns").to_owned()];
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    if let Some(line) = mounts.lines().find(|line| line.contains(CLUSTER)) {
        bail!("there is a mount: {line}");
    }
    let cgroups = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    places.extend(cgroups.filter(|words| words[2].starts_with("cgroup")).map(|words| words[1].into()));
    for place in places {
        for entry in crate::lab::entries(&place)? {
            if entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(CLUSTER)) {
                bail!("{} is there", entry.display());
            }
        }
    }
    for process in crate::lab::entries(Path::new("/proc"))? {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&format!("{}/", dir.display())) {
            bail!("{} runs: {}", process.display(), String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    Ok("nothing".to_owned())
}
