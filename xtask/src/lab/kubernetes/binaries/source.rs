//! Kubernetes from source, with the Go of the same Debian.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::VERSION;
use crate::{
    command,
    debian::{Archive, whole},
};

/// Debian's version of it.
const PACKAGED: &str = "1.20.5+really1.20.2-1.1+deb12u1";
/// The commit of Kubernetes that the release is.
const COMMIT: &str = "faecb196815e248d3ecfb03c680a4507229c2a56";
/// The one generated file that the release lacks.
const OPENAPI: &str = "pkg/generated/openapi";
const OPENAPI_FILE: &str = "zz_generated.openapi";
/// How often a build says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// The source tree and the compiler, ready.
pub(super) struct Source {
    cache: PathBuf,
}

impl Source {
    pub(super) fn prepare(cache: &Path, apt: &Archive) -> Result<Self> {
        let source = Self { cache: cache.to_owned() };
        whole(&source.go_root(), |root| {
            apt.unpack_into("golang-1.19-go", root)?;
            apt.unpack_into("golang-1.19-src", root)
        })?;
        let tree = source.tree();
        fs::create_dir_all(tree.parent().context("the source tree has a parent")?)?;
        // dpkg-source wants to make the directory itself.
        whole(&tree, |part| {
            fs::remove_dir(part)?;
            apt.unpack_source("kubernetes", PACKAGED, part)
        })?;
        source.generate_openapi()?;
        Ok(source)
    }

    /// Builds one of the programs into a file.
    pub(super) fn build(&self, program: &str, to: &Path) -> Result<()> {
        let mut flags = "-s -w".to_owned();
        let mut parts = VERSION.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for package in ["component-base/version", "client-go/pkg/version"] {
            let values = [
                ("gitVersion", format!("v{VERSION}").as_str()),
                ("gitMajor", major),
                ("gitMinor", minor),
                ("gitTreeState", "archive"),
                ("gitCommit", COMMIT),
            ]
            .map(|(name, value)| format!(" -X k8s.io/kubernetes/vendor/k8s.io/{package}.{name}={value}"));
            flags += &values.concat();
        }
        let mut go = self.go();
        go.args(["build", "-v", "-trimpath", "-ldflags", &flags, "-o"]).arg(to).arg(format!("./cmd/{program}"));
        watched(&mut go, program)
    }

    /// Where the two packages of the compiler are unpacked: one links to the files of the other.
    fn go_root(&self) -> PathBuf {
        self.cache.join("go")
    }

    /// In `GOPATH` mode the tree has to be there by this name, as a directory and not as a link.
    fn tree(&self) -> PathBuf {
        self.cache.join("gopath/src/k8s.io/kubernetes")
    }

    /// The command line of the compiler. In module mode, Go 1.19 wants to change the `go.mod` of this release, and stops.
    fn go(&self) -> Command {
        let root = self.go_root().join("usr/lib/go-1.19");
        let mut go = Command::new(root.join("bin/go"));
        let build_cache = std::env::var_os("GOCACHE").map_or_else(|| self.cache.join("gocache"), PathBuf::from);
        go.current_dir(self.tree())
            .env("GOROOT", root)
            .env("GOPATH", self.cache.join("gopath"))
            .env("GOCACHE", build_cache)
            .envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0"), ("GOFLAGS", "")]);
        go
    }

    /// As `make generated_files` of Kubernetes does it, for the API descriptions.
    fn generate_openapi(&self) -> Result<()> {
        let tree = self.tree();
        let file = tree.join(OPENAPI).join(format!("{OPENAPI_FILE}.go"));
        if file.exists() {
            return Ok(());
        }
        let generator = self.cache.join("openapi-gen");
        let mut go = self.go();
        go.args(["build", "-v", "-o"]).arg(&generator).arg("./vendor/k8s.io/kube-openapi/cmd/openapi-gen");
        watched(&mut go, "openapi-gen")?;
        let mut packages = BTreeSet::new();
        for part in ["cmd", "pkg", "plugin"] {
            collect(&tree.join(part), part, &mut packages)?;
        }
        collect(&tree.join("staging/src/k8s.io"), "vendor/k8s.io", &mut packages)?;
        packages.retain(|package| !package.contains("code-generator") && !package.contains("sample-apiserver"));
        let packages: Vec<_> = packages.into_iter().map(|package| format!("k8s.io/kubernetes/{package}")).collect();
        // It writes below GOPATH, so the name that is waited for is given at the end.
        let part = format!("{OPENAPI_FILE}.part");
        let mut generate = Command::new(&generator);
        generate
            .current_dir(&tree)
            .env("GOPATH", self.cache.join("gopath"))
            .env("GOROOT", self.go_root().join("usr/lib/go-1.19"))
            .env("PATH", self.path()?)
            .env("GO111MODULE", "off")
            .args(["--input-dirs", &packages.join(",")])
            .args(["--output-package", &format!("k8s.io/kubernetes/{OPENAPI}"), "--output-file-base", &part])
            .args(["--go-header-file", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"])
            .arg("--report-filename")
            .arg(self.cache.join("openapi-violations"));
        eprintln!("generating the API's description");
        command::run(generate.stdout(Stdio::null()))?;
        Ok(fs::rename(tree.join(OPENAPI).join(format!("{part}.go")), file)?)
    }

    /// The generator executes `go`.
    fn path(&self) -> Result<std::ffi::OsString> {
        let go = self.go_root().join("usr/lib/go-1.19/bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths([go].into_iter().chain(std::env::split_paths(&path)))?)
    }
}

/// Packages whose files ask for a description, below a directory whose package has this name.
fn collect(dir: &Path, package: &str, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{package}/{name}"), found)?;
        } else if kind.is_file()
            && entry.path().extension().is_some_and(|extension| extension == "go")
            && fs::read_to_string(entry.path())?.contains("+k8s:openapi-gen=")
        {
            found.insert(package.to_owned());
        }
    }
    Ok(())
}

/// Runs `go build -v`, which names every package that it has compiled, and says how many there are.
fn watched(go: &mut Command, program: &str) -> Result<()> {
    eprintln!("building {program}");
    let start = Instant::now();
    let mut child = go.stderr(Stdio::piped()).spawn().with_context(|| format!("run {}", command::shown(go)))?;
    let mut said = Instant::now();
    let mut compiled = 0;
    let mut complaints = Vec::new();
    for line in BufReader::new(child.stderr.take().context("go has no stderr")?).lines() {
        let line = line?;
        if line.contains([' ', '#']) {
            complaints.push(line);
            continue;
        }
        compiled += 1;
        if said.elapsed() > PROGRESS {
            said = Instant::now();
            eprintln!("[{:>5.0} s] {program}: {compiled} packages compiled", start.elapsed().as_secs_f64());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("building {program} ended with {status}:\n{}", complaints.join("\n"));
    }
    Ok(())
}
