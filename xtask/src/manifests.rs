//! `manifests`: the kustomize base as the one file that `kubectl apply --filename` takes.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The files of `deploy/base`, in the order of its `kustomization.yaml`.
const FILES: [&str; 3] = ["rbac.yaml", "configmap.yaml", "daemonset.yaml"];
const HEADER: &str = "# Made of base/ by `cargo xtask manifests`; change it there.\n";

/// Arguments of `manifests`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Write nothing; fail if the file is not up to date
    #[arg(long)]
    check: bool,
}

/// Writes `deploy/minicni.yaml`.
pub fn run(arguments: &Arguments) -> Result<()> {
    let path = path();
    let manifest = manifest()?;
    if !arguments.check {
        return fs::write(&path, manifest).with_context(|| format!("write {}", path.display()));
    }
    if fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))? != manifest {
        bail!("{} is not what deploy/base says; run `cargo xtask manifests`", path.display());
    }
    Ok(())
}

fn path() -> PathBuf {
    command::root().join("deploy/minicni.yaml")
}

/// The base needs no transformation, so that its comments can stay.
fn manifest() -> Result<String> {
    let read = |name: &&str| {
        let path = command::root().join("deploy/base").join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let files = FILES.iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(format!("{HEADER}{}", files.join("---\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deploy(file: &str) -> String {
        fs::read_to_string(command::root().join("deploy").join(file)).unwrap()
    }

    #[test]
    fn the_one_file_is_up_to_date() {
        run(&Arguments { check: true }).unwrap();
    }

    #[test]
    fn kustomize_and_we_take_the_same_files() {
        let listed = deploy("base/kustomization.yaml");
        let listed: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("- ")).collect();
        assert_eq!(listed, FILES);
    }

    #[test]
    fn the_manifests_name_the_image_that_is_built() {
        let image = format!("image: minicni:{}\n", env!("CARGO_PKG_VERSION"));
        for file in ["minicni.yaml", "uninstall.yaml"] {
            assert!(deploy(file).contains(&image), "{file}");
        }
    }
}
