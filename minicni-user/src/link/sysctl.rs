//! Kernel settings below `/proc/sys`.
//!
//! A setting is named by its path, `net/ipv4/ip_forward`, not with dots: device names may contain dots. Those below `net`
//! are the settings of the calling thread's network namespace.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Component, Path, PathBuf},
    sync::OnceLock,
};

use super::{LinkError, error::errno_of};

const ROOT: &str = "/proc/sys";
static OTHER_ROOT: OnceLock<PathBuf> = OnceLock::new();

/// Looks for the settings below another directory from now on: that of a container is mounted read-only, and the host's can
/// be mounted elsewhere. Only the first call counts.
pub fn set_root(root: PathBuf) {
    // Who comes second asks for the same: it is one program's option.
    let _ = OTHER_ROOT.set(root);
}

/// The path of a device's setting: `net/<family>/conf/<device>/<setting>`, `family` being `ipv4` or `ipv6`.
pub fn device_key(family: &str, device: &str, setting: &str) -> Result<String, LinkError> {
    if device.is_empty() || matches!(device, "." | "..") || device.contains('/') {
        return Err(LinkError::Invalid {
            field: "device name",
            value: device.to_owned(),
            reason: "it must not be empty, '.', '..' or contain '/'",
        });
    }
    Ok(format!("net/{family}/conf/{device}/{setting}"))
}

/// The value of a setting, without the line's end.
pub fn read(key: &str) -> Result<String, LinkError> {
    let mut value = fs::read_to_string(path(key)?).map_err(|error| failed("read".to_owned(), key, &error))?;
    value.truncate(value.trim_end().len());
    Ok(value)
}

/// Sets a setting.
pub fn write(key: &str, value: &str) -> Result<(), LinkError> {
    OpenOptions::new()
        .write(true)
        .open(path(key)?)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| failed(format!("set to {value:?}"), key, &error))
}

/// Sets a setting if it has another value; returns whether it had.
pub fn ensure(key: &str, value: &str) -> Result<bool, LinkError> {
    if read(key)? == value {
        return Ok(false);
    }
    write(key, value)?;
    Ok(true)
}

fn path(key: &str) -> Result<PathBuf, LinkError> {
    let plain = Path::new(key).components().all(|component| matches!(component, Component::Normal(_)));
    if key.is_empty() || !plain {
        return Err(LinkError::Invalid {
            field: "sysctl",
            value: key.to_owned(),
            reason: "it must be a path below /proc/sys without '..', such as net/ipv4/ip_forward",
        });
    }
    Ok(OTHER_ROOT.get().map_or(Path::new(ROOT), PathBuf::as_path).join(key))
}

fn failed(action: String, key: &str, error: &std::io::Error) -> LinkError {
    LinkError::Sysctl { action, key: key.to_owned(), errno: errno_of(error) }
}
