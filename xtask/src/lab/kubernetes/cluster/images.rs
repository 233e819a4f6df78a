//! The images of a cluster, made without a registry.

use std::path::Path;

use anyhow::Result;

use crate::lab::runtime::image;

/// What holds the namespaces of a pod.
pub const PAUSE: &str = "localhost/pause:1";
/// What the pods of tests run: busybox.
pub use crate::lab::runtime::image::NAME as BUSYBOX;

/// Writes the archives of both images.
pub fn write(dir: &Path) -> Result<[std::path::PathBuf; 2]> {
    let archives = [dir.join("pause.tar"), dir.join("busybox.tar")];
    image::write_with(&archives[0], PAUSE, &["sleep", "infinity"])?;
    image::write_with(&archives[1], BUSYBOX, &["sh"])?;
    Ok(archives)
}
