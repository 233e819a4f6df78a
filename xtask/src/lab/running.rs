//! Processes that another run may have started: ended by a file descriptor, which no later process inherits as it does a
//! number.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};

/// A process that was there when it was looked for.
#[derive(Debug)]
pub(super) struct Running {
    pid: Pid,
    fd: OwnedFd,
}

/// What to write down of a process that [`Running::recorded`] is to find: its number, and when it started, because numbers are
/// given again.
pub(super) fn record(pid: i32) -> String {
    format!("{pid} {}", started(pid).unwrap_or_default())
}

/// The number in a [`record`].
pub(super) fn pid(record: &str) -> Option<i32> {
    record.split_once(' ')?.0.parse().ok()
}

/// When a process started, in clock ticks since the boot; none if it is not there.
fn started(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have spaces and parentheses: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

impl Running {
    /// The process that a [`record`] is of; none if it is gone, or if whoever wrote it was killed before it was whole.
    pub(super) fn recorded(record: &str) -> Result<Option<Self>> {
        let Some(pid) = pid(record) else { return Ok(None) };
        let process = Self::find(pid)?;
        // The same number with another start is another process.
        Ok(process.filter(|_| self::record(pid) == record))
    }

    /// The process with a number; none if there is none.
    fn find(pid: i32) -> Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { pid, fd })),
            // The number may be that of a thread, of a group or of a session by now, which kernels say differently.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look for process {pid}")),
        }
    }

    /// Sends a signal. One that ended before has no need of it.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("send {signal:?} to process {}", self.pid)),
        }
    }

    /// Waits until all its threads have ended, and says whether they have. Then its files are closed, and locks that no child
    /// has inherited are free, as they need not be when its command line is empty or its first thread is a zombie.
    /// <https://elixir.bootlin.com/linux/v6.12/source/kernel/exit.c#L895>
    pub(super) fn ends_within(&self, limit: Duration) -> Result<bool> {
        let limit = PollTimeout::try_from(limit).context("the limit is too long")?;
        let ended = poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], limit)? > 0;
        if ended {
            // Where it is our child, it has to be waited for.
            let _ = waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_locks_of_a_process_that_has_ended_are_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let file = File::create(&path).unwrap();
        for _ in 0..20 {
            let mut command = Command::new("flock");
            command.arg("--no-fork").arg(&path).args(["sleep", "60"]).stdin(Stdio::null());
            let process = Running::find(command.spawn().unwrap().id().cast_signed()).unwrap().unwrap();
            while file.try_lock().is_ok() {
                file.unlock().unwrap();
            }
            assert!(!process.ends_within(Duration::ZERO).unwrap());
            process.signal(Signal::TERM).unwrap();
            assert!(process.ends_within(Duration::from_secs(20)).unwrap());
            file.try_lock().unwrap();
            file.unlock().unwrap();
            process.signal(Signal::TERM).unwrap();
        }
    }
}
