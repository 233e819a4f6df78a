//! Debian's kernels, unpacked and made ready to boot. Nothing of them is installed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    command,
    debian::{self, Archive, Tool, cache, whole},
};

/// What the first process of the guest needs to see this machine's files.
const FOR_ROOT: [&str; 4] = ["virtio_pci", "virtio_console", "virtiofs", "overlay"];
/// The first process of the guest.
const INIT: &str = include_str!("init.sh");
const BUSYBOX: &str = "/bin/busybox";

const TOOLS: [Tool; 4] = [
    Tool { program: "busybox", package: "busybox-static", purpose: "the first program of a guest" },
    Tool { program: "modprobe", package: "kmod", purpose: "a guest loads its modules with it" },
    Tool {
        program: "xz",
        package: "xz-utils",
        purpose: "modules are unpacked with it, once instead of in every guest",
    },
    Tool { program: "gzip", package: "gzip", purpose: "what a guest begins with is packed with it" },
];

/// A kernel by the release of Debian that ships it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Release {
    /// Debian 11: the oldest that the fast path is for, and for UDP alone
    #[value(name = "5.10")]
    Bullseye,
    /// Debian 12: no TCX, no netkit
    #[value(name = "6.1")]
    Bookworm,
    /// Debian 13
    #[value(name = "6.12")]
    Trixie,
    /// Debian's newest
    #[value(name = "sid")]
    Sid,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bullseye => "5.10",
            Self::Bookworm => "6.1",
            Self::Trixie => "6.12",
            Self::Sid => "sid",
        })
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Where its parts are.
    dir: PathBuf,
    /// As `uname -r` says it.
    pub(super) version: String,
}

impl Kernel {
    pub(super) fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    pub(super) fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    pub(super) fn modules(&self) -> PathBuf {
        modules(&self.dir, &self.version)
    }
}

fn modules(dir: &Path, version: &str) -> PathBuf {
    dir.join("lib/modules").join(version)
}

impl Release {
    fn codename(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// Fetches the kernel if it is not there yet; removing `~/.cache/minicni/kernels` has it fetched anew.
    pub(super) fn prepare(self) -> Result<Kernel> {
        debian::need(&TOOLS)?;
        let kernels = cache()?.join("kernels");
        fs::create_dir_all(&kernels).with_context(|| format!("create {}", kernels.display()))?;
        let dir = kernels.join(self.codename());
        whole(&dir, |dir| self.make(&kernels, dir))?;
        let version = fs::read_to_string(dir.join("version"))?;
        Ok(Kernel { dir, version })
    }

    fn make(self, kernels: &Path, dir: &Path) -> Result<()> {
        let archive = Archive::new(kernels.join("apt").join(self.codename()), self.codename());
        // sid has no security updates of its own. 6.12.107 dies in qemu 7.2 after seconds, 6.12.117 does not.
        let archive = if self == Self::Sid { archive } else { archive.updated() };
        fs::create_dir_all(kernels.join("apt").join(self.codename()))?;
        let unpacked = dir.join("unpacked");
        // One package in older releases; in newer ones the image and the modules are packages of their own.
        for package in archive.dependencies("linux-image-cloud-amd64")? {
            if package.starts_with("linux-") && package != "linux-image-cloud-amd64" {
                archive.unpack_into(&package, &unpacked)?;
            }
        }
        // Newer packages have everything below /usr, and the image beside its modules.
        let merged = unpacked.join("usr/lib/modules");
        let packed = if merged.is_dir() { merged } else { unpacked.join("lib/modules") };
        let packed = only(&packed, "")?;
        let image = only(&packed, "vmlinuz").or_else(|_| only(&unpacked.join("boot"), "vmlinuz-"))?;
        let version = packed.file_name().context("a directory of modules has a name")?.to_string_lossy().into_owned();
        fs::rename(image, dir.join("vmlinuz"))?;
        fs::create_dir_all(dir.join("lib/modules"))?;
        fs::rename(packed, modules(dir, &version))?;
        fs::remove_dir_all(unpacked)?;
        unpack_modules(&modules(dir, &version))?;
        command::run(Command::new("depmod").arg("--basedir").arg(dir).arg(&version))?;
        initrd(dir, &version)?;
        Ok(fs::write(dir.join("version"), version)?)
    }
}

/// The one entry of a directory whose name begins so.
fn only(dir: &Path, beginning: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let fits = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    entries.find(fits).with_context(|| format!("Debian's package has no {beginning}* in {}", dir.display()))
}

fn unpack_modules(dir: &Path) -> Result<()> {
    let mut find = Command::new("find");
    command::run(find.arg(dir).args(["-name", "*.ko.xz", "-exec", "xz", "--decompress", "--threads=0", "{}", "+"]))
}

/// What the guest begins with: busybox, the modules on the way to its root, and the first process.
fn initrd(dir: &Path, version: &str) -> Result<()> {
    let root = dir.join("initrd.d");
    for name in ["bin", "modules", "proc", "sys", "dev", "host", "overlay", "root"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).context("copy busybox")?;
    let mut list = Command::new("modprobe");
    list.arg("--dirname").arg(dir).args(["--set-version", version, "--all", "--show-depends"]).args(FOR_ROOT);
    // Lines such as `insmod /…/virtiofs.ko`, what others need first; a module may be there more than once.
    for (number, line) in command::output(&mut list)?.lines().enumerate() {
        let Some(module) = line.strip_prefix("insmod ") else { continue };
        let module = Path::new(module.trim());
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        fs::copy(module, root.join(format!("modules/{number:02}-{name}"))).with_context(|| format!("copy {name}"))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let packed = fs::File::create(dir.join("initrd"))?;
    let pack = format!("find . | {BUSYBOX} cpio -o -H newc 2>/dev/null | gzip -1");
    command::run(Command::new("sh").args(["-c", &pack]).current_dir(&root).stdout(Stdio::from(packed)))?;
    Ok(fs::remove_dir_all(root)?)
}
