//! Network configurations that a runtime takes before ours.

use std::{fs, io, path::Path};

use super::{InstallError, failed};

/// What runtimes read as a network configuration: `ConfFiles` of
/// <https://github.com/containernetworking/cni/blob/v1.3.0/libcni/conf.go>. Files whose names begin with a dot count, too.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// The configurations that come before `name` in the order of bytes, in which containerd and CRI-O read the directory. Both
/// take the first one; only a CRI-O that was told `cni_default_network` goes by the network's name.
pub(super) fn earlier(directory: &Path, name: &str) -> Result<Vec<String>, InstallError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", directory))?,
    };
    let mut earlier = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", directory))?;
        let other = entry.file_name();
        let extension = Path::new(&other).extension().and_then(|extension| extension.to_str());
        let is_read = extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
            && !entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_read && other.as_encoded_bytes() < name.as_bytes() {
            earlier.push(other.to_string_lossy().into_owned());
        }
    }
    earlier.sort_unstable();
    Ok(earlier)
}
