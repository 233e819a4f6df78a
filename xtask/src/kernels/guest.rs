//! A virtual machine that runs one command and ends.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use super::kernel::Kernel;
use crate::debian::{self, Tool};

/// The first process once the root is there.
const SCRIPT: &str = include_str!("guest.sh");
/// Where Debian 12 has it, and Debian 13.
const VIRTIOFSD: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];
const QEMU: Tool =
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", purpose: "other kernels are booted in it" };
/// How the directories of guests begin. The process id of their owner follows.
const PREFIX: &str = "minicni-guest.";
/// How long virtiofsd may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// What a guest takes for time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Clock {
    /// The host's time.
    Time,
    /// The number of instructions: one is a nanosecond, and a sleep takes none of the host's time.
    Instructions,
}

/// The virtual machine. It has one CPU: instructions can be counted on one alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    /// What it takes for time.
    pub(super) clock: Clock,
    /// Its memory in MiB.
    pub(super) memory: u32,
    /// After this it is switched off.
    pub(super) timeout: Duration,
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

impl Guest {
    /// Runs a command as root in the working directory of this process. It sees the files of this machine, and what it
    /// writes is gone with the guest. Its output goes to a file, or to our own.
    pub(super) fn run(
        &self,
        kernel: &Kernel,
        program: &OsStr,
        arguments: &[OsString],
        output: Option<File>,
    ) -> Result<ExitStatus> {
        debian::need(&[QEMU])?;
        let run = directory(&std::env::temp_dir())?;
        let path = |name: &str| run.path().join(name);
        fs::write(path("command.sh"), command_line(program, arguments))?;
        fs::write(path("guest.sh"), script(kernel, run.path())?)?;
        mkfifo(&path("output"), Mode::S_IRWXU)?;
        let files = share(&run)?;
        let from = path("output");
        let copy = thread::spawn(move || -> io::Result<u64> {
            let mut from = File::open(from)?;
            match output {
                Some(mut file) => io::copy(&mut from, &mut file),
                None => io::copy(&mut from, &mut io::stdout()),
            }
        });
        let mut qemu = Process(self.qemu(kernel, &run).spawn().context("run qemu-system-x86_64")?);
        let deadline = Instant::now() + self.timeout;
        while qemu.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the guest did not end within {:?}; the end of its console:\n{}", self.timeout, console(&run));
            }
            thread::sleep(Duration::from_millis(50));
        }
        drop(files);
        copy.join().ok().context("the output was not copied")??;
        let status = fs::read_to_string(path("status")).unwrap_or_default();
        let Ok(status) = status.trim().parse::<i32>() else {
            bail!("{} died before its command ended; the end of its console:\n{}", kernel.version, console(&run));
        };
        Ok(ExitStatus::from_raw(status << 8))
    }

    fn qemu(&self, kernel: &Kernel, run: &TempDir) -> Command {
        let path = |name: &str| run.path().join(name).display().to_string();
        let memory = format!("{}M", self.memory);
        // A guest has no terminal: when this process is killed it would go on for as long as its command does.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", QEMU.program]);
        qemu.args(["-machine", "q35,memory-backend=memory", "-cpu", "max", "-m", &memory]);
        qemu.args(["-accel", "tcg,tb-size=512", "-smp", "1"]);
        if self.clock == Clock::Instructions {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-no-user-config"])
            .arg("-serial")
            .arg(format!("file:{}", path("console")))
            .arg("-object")
            .arg(format!("memory-backend-memfd,id=memory,size={memory},share=on"))
            .arg("-chardev")
            .arg(format!("socket,id=files,path={}", path("files")))
            .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host,queue-size=1024"])
            .args(["-device", "virtio-serial-pci"]);
        for port in ["output", "status"] {
            qemu.arg("-chardev")
                .arg(format!("file,id={port},path={}", path(port)))
                .arg("-device")
                .arg(format!("virtserialport,chardev={port},name=minicni.{port}"));
        }
        let options =
            "console=ttyS0 panic=-1 oops=panic loglevel=4 mitigations=off nowatchdog tsc=reliable no_timer_check";
        qemu.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(kernel.initrd());
        qemu.arg("-append").arg(format!("{options} minicni.run={}", run.path().display()));
        qemu.stdin(Stdio::null());
        qemu
    }
}

/// A directory for one guest. Those of processes that were killed before they could remove theirs are removed.
fn directory(parent: &Path) -> Result<TempDir> {
    for entry in fs::read_dir(parent)?.filter_map(io::Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('.')).map(|(owner, _)| owner);
        if let Some(Ok(owner)) = owner.map(str::parse::<u32>)
            && !Path::new(&format!("/proc/{owner}")).exists()
        {
            // Another run may be at it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(tempfile::Builder::new().prefix(&format!("{PREFIX}{}.", std::process::id())).tempdir_in(parent)?)
}

/// Starts what shows this machine's files to the guest.
fn share(run: &TempDir) -> Result<Process> {
    let there = || VIRTIOFSD.into_iter().find(|path| Path::new(path).is_file());
    if there().is_none() {
        let reason = "virtiofsd is missing: guests see this machine's files by it";
        let newer = debian::install(&["virtiofsd"], reason);
        newer.or_else(|_| debian::install(&["qemu-system-common"], reason))?;
    }
    let virtiofsd = there().with_context(|| format!("no virtiofsd at {}", VIRTIOFSD.join(", nor at ")))?;
    let socket = run.path().join("files");
    let process = Process(
        Command::new(virtiofsd)
            .arg(format!("--socket-path={}", socket.display()))
            .args(["-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always", "-o", "log_level=err"])
            .stdin(Stdio::null())
            .stderr(File::create(run.path().join("virtiofsd"))?)
            .spawn()
            .with_context(|| format!("run {virtiofsd}"))?,
    );
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() > LISTENS_WITHIN {
            bail!("{virtiofsd} does not listen: {}", fs::read_to_string(run.path().join("virtiofsd"))?);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(process)
}

/// The last lines of the guest's console.
fn console(run: &TempDir) -> String {
    let console = fs::read(run.path().join("console")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let lines: Vec<_> = console.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A command as a shell reads it.
fn command_line(program: &OsStr, arguments: &[OsString]) -> Vec<u8> {
    let mut line = Vec::new();
    for word in std::iter::once(program).chain(arguments.iter().map(OsString::as_os_str)) {
        quote(&mut line, word);
        line.push(b' ');
    }
    line.push(b'\n');
    line
}

/// A word between single quotes, in which only they mean anything.
fn quote(line: &mut Vec<u8>, word: &OsStr) {
    line.push(b'\'');
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => line.extend_from_slice(br"'\''"),
            _ => line.push(byte),
        }
    }
    line.push(b'\'');
}

fn script(kernel: &Kernel, run: &Path) -> Result<Vec<u8>> {
    let mut script = Vec::new();
    let directory = std::env::current_dir()?;
    let set: [(&str, &Path); 3] = [("modules", &kernel.modules()), ("run", run), ("directory", &directory)];
    for (name, value) in set {
        write!(script, "{name}=")?;
        quote(&mut script, value.as_os_str());
        script.push(b'\n');
    }
    script.extend_from_slice(SCRIPT.as_bytes());
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_guest_whose_owner_was_killed_is_removed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let old = parent.path().join(format!("{PREFIX}{}.x", ended.id()));
        let other = parent.path().join("of-somebody-else");
        fs::create_dir_all(old.join("share")).unwrap();
        fs::create_dir(&other).unwrap();
        let first = directory(parent.path()).unwrap();
        let second = directory(parent.path()).unwrap();
        assert!(!old.exists());
        assert!(other.exists() && first.path().exists() && second.path().exists());
    }

    #[test]
    fn a_shell_reads_the_words_of_a_command_as_they_were_given() {
        let words = ["%s|", "two words", "", "it's", "$HOME `id` \\ \"", "a\nb"].map(OsString::from);
        let line = command_line(OsStr::new("printf"), &words);
        let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&line)).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "two words||it's|$HOME `id` \\ \"|a\nb|");
    }
}
