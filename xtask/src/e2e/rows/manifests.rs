//! What users apply, as the API server sees it.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::bed::Bed;
use crate::command;

/// Files of `deploy/`.
const FILES: [&str; 4] = ["minicni.yaml", "uninstall.yaml", "bench/bench.yaml", "bench/ptp.yaml"];
const OVERLAYS: [&str; 2] = ["overlays/vxlan", "overlays/kind"];
/// Unknown fields are an error, and nothing is created.
const DRY: [&str; 4] = ["apply", "--validate=true", "--dry-run=server", "-f"];

pub(super) fn look(bed: &mut Bed) -> Result<String> {
    let deploy = command::root().join("deploy");
    for file in FILES {
        let path = deploy.join(file);
        let path = path.to_str().context("the path of a manifest is no text")?;
        bed.kubectl().run(&[&DRY[..], &[path]].concat())?;
    }
    let seen = format!("{} are valid", FILES.join(", "));
    // The cluster's own kubectl is too old to render them.
    if !renders() {
        return Ok(format!("{seen}; the overlays were not looked at: no kubectl along PATH is 1.21 or later"));
    }
    for overlay in OVERLAYS {
        let rendered = command::output(Command::new("kubectl").arg("kustomize").arg(deploy.join(overlay)))?;
        bed.kubectl().feed(&[&DRY[..], &["-"]].concat(), &rendered).context(overlay)?;
    }
    Ok(format!("{seen}, and so are {}", OVERLAYS.join(", ")))
}

/// Whether there is a kubectl along PATH that renders overlays with patches.
fn renders() -> bool {
    let version = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output();
    let version = version.ok().and_then(|output| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok());
    let minor =
        version.and_then(|version| version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok());
    minor.is_some_and(|minor: u32| minor >= 21)
}
