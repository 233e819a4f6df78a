//! Executes `nft` and the programs of iptables.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};

use super::FirewallError;

/// How long one may take. Even thousands of nodes take less than a second.
const LIMIT: Duration = Duration::from_mins(1);
/// How often one is asked whether it ended.
const STEP: Duration = Duration::from_millis(2);

/// `MFD_NOEXEC_SEAL` of linux/memfd.h, which hosts may insist on (`vm.memfd_noexec`) and kernels before 6.3 do not know.
const NOT_EXECUTABLE: MFdFlags = MFdFlags::from_bits_retain(8);

/// A program of the host's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tool {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
    /// What is not done without it.
    pub(super) consequence: &'static str,
}

/// `nft`.
pub(super) const NFT: Tool = Tool {
    program: "nft",
    package: "nftables",
    consequence: "pods do not reach hosts outside the cluster that have no route to them, and nobody looks whether \
                  another firewall drops pods' packets",
};

impl Tool {
    /// Gives what the program printed.
    pub(super) fn run(self, arguments: &[&str], stdin: &str) -> Result<String, FirewallError> {
        self.run_within(LIMIT, arguments, stdin)
    }

    fn run_within(self, limit: Duration, arguments: &[&str], stdin: &str) -> Result<String, FirewallError> {
        let Self { program, package, consequence } = self;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => FirewallError::NotInstalled { program, package, consequence },
            _ => FirewallError::Execute { program, source },
        };
        // Files, not pipes: those would have to be fed and emptied while the program is watched.
        let [input, output, errors] = [file(stdin), file(""), file("")].map(|file| file.map_err(failed));
        let (input, mut output, mut errors) = (input?, output?, errors?);
        let mut command = Command::new(program);
        command.args(arguments).stdin(input);
        command.stdout(output.try_clone().map_err(failed)?).stderr(errors.try_clone().map_err(failed)?);
        let child = command.spawn().map_err(failed)?;
        let Some(status) = wait(child, limit).map_err(failed)? else {
            return Err(FirewallError::Hung { command: self.line(arguments), limit, consequence });
        };
        if !status.success() {
            let stderr = text(&mut errors).map_err(failed)?;
            // What follows the first error, which nft underlines, follows from it.
            let stderr = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>();
            return Err(FirewallError::Refused {
                command: self.line(arguments),
                stderr: stderr.join(" "),
                consequence,
            });
        }
        text(&mut output).map_err(failed)
    }

    /// The command line, for people.
    pub(super) fn line(self, arguments: &[&str]) -> String {
        [&[self.program], arguments].concat().join(" ")
    }
}

/// A file without a name, with this in it.
fn file(contents: &str) -> io::Result<File> {
    let memory = |flags| memfd_create(c"minicni", MFdFlags::MFD_CLOEXEC | flags);
    let memory = memory(NOT_EXECUTABLE).or_else(|errno| match errno {
        Errno::EINVAL => memory(MFdFlags::empty()),
        errno => Err(errno),
    });
    let mut file = File::from(memory?);
    file.write_all(contents.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// All that was written to a file.
fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How a program ended; `None` where it did not, and was killed.
fn wait(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(STEP);
    }
    child.kill()?;
    // One that waits for the kernel ends when the kernel lets it.
    thread::spawn(move || child.wait());
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Tool = Tool { program: "sh", package: "dash", consequence: "nobody sleeps" };

    #[test]
    fn a_program_that_does_not_end_is_ended_whatever_it_started_holds() {
        let start = Instant::now();
        let error = SHELL.run_within(Duration::from_secs(1), &["-c", "sleep 3 & wait"], "").unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(3), "{error}");
        assert_eq!(
            error.to_string(),
            "sh -c sleep 3 & wait did not end within 1 s; nobody sleeps until that is solved"
        );
    }

    #[test]
    fn a_program_reads_all_that_it_is_given_and_all_that_it_prints_is_given_back() {
        let long = "line\n".repeat(100_000);
        assert_eq!(SHELL.run(&["-c", "cat; cat >&2"], &long).unwrap(), long);
        let error = SHELL.run(&["-c", "echo one >&2; echo two >&2; exit 3"], "").unwrap_err();
        assert!(error.to_string().contains("one two"), "{error}");
    }
}
