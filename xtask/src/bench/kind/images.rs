//! The images of the pods and of other networks.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{Arguments, PTP};
use crate::{
    build, command, image,
    lab::kubernetes::{Component, binaries},
};

/// What deploy/bench/bench.yaml calls the image of its pods.
const NAME: &str = concat!("docker.io/library/minicni-bench:", env!("CARGO_PKG_VERSION"));

/// Builds the pods' program and writes its image.
pub(super) fn write(archive: &Path) -> Result<()> {
    let program = build::package("traffic")?.join("traffic");
    image::of_traffic(&program, NAME, archive)
}

/// What [`PTP_MANIFEST`] calls its image.
const PTP_NAME: &str = concat!("docker.io/library/minicni-bench-ptp:", env!("CARGO_PKG_VERSION"));

/// The plain network to compare with, below the root of the sources.
const PTP_MANIFEST: &str = "deploy/bench/ptp.yaml";

/// Writes the image of the plain network.
pub(super) fn write_ptp(archive: &Path) -> Result<()> {
    let kubectl = binaries::need(&[Component::Kubectl])?.path(Component::Kubectl);
    image::of_shell(&kubectl, PTP_NAME, archive)
}

/// The manifests of a network and the archives of its images: those that were given, or of the plain network, which are
/// ours, where none were.
pub(super) fn of_network(arguments: &Arguments) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    if arguments.cni != PTP || !arguments.manifest.is_empty() {
        return Ok((arguments.manifest.clone(), arguments.image.clone()));
    }
    let archive = command::root().join("target/minicni-bench-ptp-image.tar");
    write_ptp(&archive)?;
    Ok((vec![command::root().join(PTP_MANIFEST)], vec![archive]))
}

/// Fails where manifests name images that no archive has, saying which.
pub(super) fn need(manifests: &[PathBuf], archives: &[PathBuf]) -> Result<()> {
    let mut missing = BTreeSet::new();
    for manifest in manifests {
        let text = fs::read_to_string(manifest).with_context(|| format!("read {}", manifest.display()))?;
        missing.extend(named(&text));
    }
    for archive in archives {
        for name in tags(archive)? {
            missing.remove(&name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = missing.into_iter().collect();
    bail!(
        "the nodes of this machine's cluster reach no registry, and these images are missing: {}; save them elsewhere \
         (docker save, ctr image export) and name the archives with --image",
        missing.join(", ")
    )
}

/// The images that a manifest names, whole.
fn named(manifest: &str) -> BTreeSet<String> {
    let values = manifest.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("image:"));
    values.map(|value| whole(value.trim().trim_matches(['"', '\'']))).collect()
}

/// As runtimes complete names: <https://github.com/distribution/reference>
fn whole(name: &str) -> String {
    let mut name = match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    if !name.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
        name.push_str(":latest");
    }
    name
}

/// The names of the images in a docker archive.
fn tags(archive: &Path) -> Result<Vec<String>> {
    let read = || -> Result<Vec<String>> {
        for entry in tar::Archive::new(File::open(archive)?).entries()? {
            let mut entry = entry?;
            if entry.path()?.as_os_str() != "manifest.json" {
                continue;
            }
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            let manifest: serde_json::Value = serde_json::from_str(&text)?;
            let images = manifest.as_array().into_iter().flatten();
            let tags = images.flat_map(|image| image["RepoTags"].as_array().into_iter().flatten());
            return Ok(tags.filter_map(|tag| tag.as_str()).map(whole).collect());
        }
        bail!("it has no manifest.json, as docker archives have")
    };
    read().with_context(|| format!("look into {}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_runtimes_do() {
        for (name, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("flannel/flannel:v1", "docker.io/flannel/flannel:v1"),
            ("quay.io/cilium/cilium@sha256:00", "quay.io/cilium/cilium@sha256:00"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
        ] {
            assert_eq!(whole(name), expected);
        }
    }

    #[test]
    fn an_image_that_is_in_no_archive_is_named() {
        let dir = std::env::temp_dir().join(format!("minicni-images-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (manifest, archive) = (dir.join("other.yaml"), dir.join("a.tar"));
        fs::write(&manifest, "  - image: \"minicni-bench:0.1.0\"\n    image: example.com/other:2\n").unwrap();
        image::of_traffic(&manifest, NAME, &archive).unwrap();
        let error = need(std::slice::from_ref(&manifest), &[archive]).unwrap_err().to_string();
        assert!(error.contains("missing: example.com/other:2;"), "{error}");
        assert!(need(&[manifest], &[]).unwrap_err().to_string().contains("minicni-bench:0.1.0"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_manifests_name_the_images_that_are_built() {
        for (manifest, name) in [("deploy/bench/bench.yaml", NAME), (PTP_MANIFEST, PTP_NAME)] {
            let manifest = fs::read_to_string(command::root().join(manifest)).unwrap();
            assert_eq!(named(&manifest), BTreeSet::from([name.to_owned()]));
        }
    }
}
