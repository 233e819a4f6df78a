//! What the daemon executes: `nft` and iptables of both kinds, out of Debian's packages as they are installed here.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::root::Root;
use crate::{
    command,
    debian::{self, Tool},
};

const TOOLS: [Tool; 2] = [
    Tool { program: "nft", package: "nftables", purpose: "the daemon masquerades with it" },
    Tool { program: "xtables-nft-multi", package: "iptables", purpose: "the daemon looks at other firewalls with it" },
];

/// The programs of iptables are one of each kind, which goes by the name under which it is executed.
const LINKS: [(&str, &str); 2] = [("xtables-nft-multi", "nft"), ("xtables-legacy-multi", "legacy")];
const WORK: [&str; 3] = ["", "-save", "-restore"];

/// The directory of what iptables loads to understand rules, below that of the libraries.
const EXTENSIONS: &str = "xtables";

/// Adds the programs, their libraries, and of each package its version and its licence.
pub(super) fn add(root: &mut Root) -> Result<()> {
    debian::need(&TOOLS)?;
    let mut files = BTreeSet::from([real(&found("nft")?)?]);
    for (program, kind) in LINKS {
        files.insert(real(&found(program)?)?);
        for (family, work) in ["iptables", "ip6tables"].iter().flat_map(|family| WORK.map(|work| (family, work))) {
            root.link(format!("usr/sbin/{family}-{kind}{work}"), program);
        }
    }
    let libraries = libraries(&found("xtables-nft-multi")?)?;
    let directory =
        libraries.iter().find_map(|library| Some(library.parent()?.join(EXTENSIONS)).filter(|dir| dir.is_dir()));
    let directory = real(&directory.context("iptables has no directory of extensions beside its libraries")?)?;
    for extension in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        files.insert(extension?.path());
    }
    for program in files.clone() {
        for library in self::libraries(&program)? {
            files.insert(real(&library)?);
            // A library is asked for by a name that is a link.
            if let (Some(name), Some(file)) = (library.file_name(), real(&library)?.file_name())
                && name != file
            {
                root.link(inside(&real(&library)?.with_file_name(name))?, file);
            }
        }
    }
    for file in &files {
        root.add(file, inside(file)?)?;
    }
    // As on Debian, where the loader's path begins with /lib64.
    for directory in ["lib", "lib64"] {
        root.link(directory, format!("usr/{directory}"));
    }
    let program = real(&found("nft")?)?;
    let (asked, loader) = loader(&program)?;
    if asked != loader {
        root.link(inside(&asked)?, loader);
    }
    describe(root, &files)
}

/// The path by which a program asks for its loader, which the architecture fixes, and the file that is there.
fn loader(program: &Path) -> Result<(PathBuf, PathBuf)> {
    let libraries = libraries(program)?;
    let is_loader = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-"));
    let asked = libraries.iter().find(is_loader).with_context(|| format!("{} names no loader", program.display()))?;
    // `/lib` and `/lib64` are links into `/usr`.
    let below = asked.strip_prefix("/usr").or_else(|_| asked.strip_prefix("/"))?;
    Ok((Path::new("/usr").join(below), real(asked)?))
}

/// The versions of the packages that files are of, and their licences.
fn describe(root: &mut Root, files: &BTreeSet<PathBuf>) -> Result<()> {
    let packages = files.iter().map(|file| package(file)).collect::<Result<BTreeSet<_>>>()?;
    let versions = command::output(
        Command::new("dpkg-query")
            .args(["--show", "--showformat", "${Package} ${Version} ${Architecture}\n"])
            .args(&packages),
    )?;
    root.add_text("usr/share/minicni/packages", format!("{versions}\n"));
    for package in &packages {
        let name = package.split(':').next().unwrap_or(package);
        let licence = PathBuf::from(format!("/usr/share/doc/{name}/copyright"));
        root.add(&licence, inside(&licence)?)?;
    }
    Ok(())
}

/// The package that a file is of. Some name their files as they were called before `/lib` was a link.
fn package(file: &Path) -> Result<String> {
    for name in [file.to_owned(), Path::new("/").join(file.strip_prefix("/usr").unwrap_or(file))] {
        let output = Command::new("dpkg-query").arg("--search").arg(&name).output().context("run dpkg-query")?;
        if let Some((package, _)) = String::from_utf8_lossy(&output.stdout).split_once(": ") {
            return Ok(package.to_owned());
        }
    }
    bail!("{} is of no package of Debian", file.display())
}

fn found(program: &str) -> Result<PathBuf> {
    command::find(program).with_context(|| format!("{program} is missing"))
}

fn real(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("look for {}", path.display()))
}

fn inside(path: &Path) -> Result<PathBuf> {
    Ok(path.strip_prefix("/").with_context(|| format!("{} is not absolute", path.display()))?.to_owned())
}

/// The libraries that a program or a library is linked to.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = command::output(Command::new("ldd").arg(program))?;
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), missing.trim());
    }
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_finds_its_loader_by_the_path_of_the_architecture() {
        let (asked, loader) = loader(Path::new("/bin/ls")).unwrap();
        let expected = if cfg!(target_arch = "aarch64") {
            "/usr/lib/ld-linux-aarch64.so.1"
        } else {
            "/usr/lib64/ld-linux-x86-64.so.2"
        };
        assert_eq!(asked, Path::new(expected));
        assert!(loader.is_file() && !loader.is_symlink(), "{}", loader.display());
    }
}
