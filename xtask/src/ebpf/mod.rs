//! `build-ebpf`: from `minicni-ebpf/` to the committed object in `minicni-user/ebpf/`.

mod linkage;
mod manifest;
mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use self::{
    manifest::{Manifest, digest},
    toolchain::Toolchain,
};
use crate::command;

const OBJECT: &str = "minicni-user/ebpf/minicni.o";
const MANIFEST: &str = "minicni-user/ebpf/manifest.json";
const TARGET: &str = "bpfel-unknown-none";

/// Arguments of `build-ebpf`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rebuild and compare with the committed object instead of replacing it
    #[arg(long)]
    check: bool,
}

/// Builds the object, or checks the committed one.
pub fn run(arguments: &Arguments) -> Result<()> {
    let committed = Manifest::read(&command::root().join(MANIFEST))?;
    let sources = manifest::hash_of_sources()?;
    if arguments.check {
        let Some(committed) = &committed else { bail!("{MANIFEST} is missing; run `cargo xtask build-ebpf`") };
        if committed.sources != sources {
            bail!("the eBPF sources changed after {OBJECT} was built; run `cargo xtask build-ebpf` and commit both");
        }
    }
    let toolchain = toolchain::find(committed.as_ref())?;
    eprintln!("building the eBPF object with {}", toolchain.identity);
    let built = build(&toolchain)?;
    let rebuilt = Manifest { sources, object: digest(&fs::read(&built)?), toolchain: toolchain.identity.clone() };
    match committed {
        Some(committed) if arguments.check => compare(&committed, &rebuilt, &built),
        _ => {
            install(&built, &command::root().join(OBJECT))?;
            rebuilt.write(&command::root().join(MANIFEST))?;
            eprintln!("wrote {OBJECT} and {MANIFEST}");
            Ok(())
        }
    }
}

fn compare(committed: &Manifest, rebuilt: &Manifest, built: &Path) -> Result<()> {
    let object = digest(&fs::read(command::root().join(OBJECT))?);
    if object != committed.object {
        bail!("{OBJECT} is not the object that {MANIFEST} describes: {object} instead of {}", committed.object);
    }
    if rebuilt.toolchain == committed.toolchain {
        if rebuilt.object != committed.object {
            bail!("rebuilding gave another object ({}) than the committed one ({object})", rebuilt.object);
        }
        eprintln!("the committed object is what its sources and its toolchain give: {object}");
        return Ok(());
    }
    eprintln!(
        "this machine's toolchain ({}) is not the manifest's ({}), so the bytes may differ;\n\
         the rebuilt object has to pass the datapath tests instead",
        rebuilt.toolchain, committed.toolchain
    );
    command::run(
        Command::new("cargo")
            .args(["test", "--package", "minicni-user", "--test", "datapath"])
            .current_dir(command::root())
            .env("MINICNI_EBPF_OBJECT", built),
    )
}

/// Builds and strips the object; gives its path below the target directory.
fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let root = command::root();
    let target = root.join("target/ebpf");
    let manifest = root.join("minicni-ebpf/Cargo.toml");
    let cargo = || {
        let mut cargo = toolchain.cargo();
        cargo.current_dir(root.join("minicni-ebpf")).arg("--quiet");
        cargo
    };
    // Before the flags, which name the directories that this creates.
    command::run(cargo().args(["fetch", "--locked", "--manifest-path"]).arg(&manifest))?;
    command::run(
        cargo()
            .args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", TARGET, "--manifest-path"])
            .arg(&manifest)
            .arg("--target-dir")
            .arg(&target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?.join("\u{1f}")),
    )?;
    let built = target.join(TARGET).join("release/minicni");
    let stripped = target.join("minicni.o");
    // Without the debug sections it is a tenth of the size; BTF stays.
    command::run(Command::new(&toolchain.strip).arg("-g").arg(&built).arg("-o").arg(&stripped))?;
    let mut object = fs::read(&stripped)?;
    linkage::make_static(&mut object)?;
    fs::write(&stripped, &object)?;
    if let Some(name) = mangled_name(&object) {
        bail!(
            "{name} in the object depends on the directory in which it was built; inline it, or give it #[unsafe(no_mangle)]"
        );
    }
    Ok(stripped)
}

/// The first symbol whose name the compiler made up (<https://doc.rust-lang.org/rustc/symbol-mangling/v0.html>).
fn mangled_name(object: &[u8]) -> Option<String> {
    let mut strings = object.split(|byte| *byte == 0);
    // What follows is a path, and paths begin with such a letter.
    let name = strings.find(|string| matches!(string, [b'_', b'R', b'A'..=b'Z', ..]))?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Compiler flags: BTF for the maps, the third version of the instructions (Linux 5.1), which knows numbers of 32 bits, loads of whole
/// words where a packet's alignment promises halves (the kernels that we run on take them, `NET_IP_ALIGN` and
/// `CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`), and no path of this machine in the object.
fn flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags = vec![
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        "-Ctarget-cpu=v3".into(),
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
    ];
    let mut remap = |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    remap(command::root(), "/minicni");
    remap(&toolchain.sysroot.join("lib/rustlib/src/rust"), "/rust");
    let registry = cargo_home()?.join("registry/src");
    for index in fs::read_dir(&registry).with_context(|| format!("read {}", registry.display()))? {
        remap(&index?.path(), "/cargo");
    }
    Ok(flags)
}

fn cargo_home() -> Result<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

fn install(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension("o.new");
    fs::copy(from, &temporary).with_context(|| format!("write {}", temporary.display()))?;
    fs::rename(&temporary, to).with_context(|| format!("rename to {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::mangled_name;

    #[test]
    fn a_name_that_the_compiler_made_up_is_found() {
        assert_eq!(
            mangled_name(b"\0ingress\0_RNvNtCs_7minicni4flow\0egress\0").as_deref(),
            Some("_RNvNtCs_7minicni4flow")
        );
        assert_eq!(mangled_name(b"\0ingress\0MAP_R\0_R\0"), None);
    }
}
