//! Executes `nft` and the programs of iptables.

use std::{
    io::{self, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::alarm};

use super::FirewallError;

/// How long one may take. Even thousands of nodes take less than a second.
const LIMIT: Duration = Duration::from_mins(1);

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
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => {
                let Self { program, package, consequence } = self;
                FirewallError::NotInstalled { program, package, consequence }
            }
            _ => FirewallError::Execute { program: self.program, source },
        };
        let mut command = Command::new(self.program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
        let set_alarm = move || {
            alarm::set(seconds);
            Ok(())
        };
        // SAFETY: the closure does nothing but call a function that is safe after a fork: signal-safety(7). What executes a
        // program leaves its alarm: alarm(2).
        unsafe { command.pre_exec(set_alarm) };
        let mut child = command.spawn().map_err(failed)?;
        // Who does not read it has an error to tell.
        let written = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(stdin.as_bytes()));
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.signal() == Some(Signal::SIGALRM as i32) {
            let Self { consequence, .. } = self;
            return Err(FirewallError::Hung { command: self.line(arguments), limit, consequence });
        }
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            // What follows the first error, which nft underlines, follows from it.
            let stderr = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>();
            return Err(FirewallError::Refused {
                command: self.line(arguments),
                stderr: stderr.join(" "),
                consequence: self.consequence,
            });
        }
        written.map_err(failed)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The command line, for people.
    pub(super) fn line(self, arguments: &[&str]) -> String {
        [&[self.program], arguments].concat().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let sleep = Tool { program: "sleep", package: "coreutils", consequence: "nobody sleeps" };
        let start = Instant::now();
        let error = sleep.run_within(Duration::from_secs(1), &["60"], "").unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(30), "{error}");
        assert_eq!(error.to_string(), "sleep 60 did not end within 1 s; nobody sleeps until that is solved");
    }
}
