//! The first process of a PID namespace: whatever runs in the namespace ends with it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// How long it may take to end.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct FirstProcess {
    /// As those outside know it.
    pub(super) pid: i32,
    /// `unshare`, which waits for it.
    parent: i32,
    /// The number of its PID namespace.
    namespace: u64,
}

impl FirstProcess {
    /// As it wrote itself down in a directory, in the file `pid`, if it came so far.
    pub(super) fn of(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join("pid");
        let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
        let mut words = text.split_whitespace();
        let mut init = || Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?));
        let (pid, parent, namespace) = init().with_context(|| format!("{} says {text:?}", file.display()))?;
        Ok(Some(Self { pid, parent, namespace }))
    }

    fn is_alive(&self) -> bool {
        fs::metadata(format!("/proc/{}/ns/pid", self.pid)).is_ok_and(|namespace| namespace.ino() == self.namespace)
    }

    /// Ends it, and everything in its namespace, and waits for that.
    pub(super) fn end(&self) -> Result<()> {
        if self.is_alive() {
            kill(Pid::from_raw(self.pid), Signal::SIGKILL)?;
        }
        let start = Instant::now();
        // The kernel takes a first process away when everything in its namespace has ended.
        while self.is_alive() {
            if start.elapsed() > LIMIT {
                bail!("process {} does not end", self.pid);
            }
            sleep(Duration::from_millis(5));
        }
        // Where it is our child, it has to be waited for.
        while start.elapsed() < LIMIT
            && waitpid(Pid::from_raw(self.parent), Some(WaitPidFlag::WNOHANG))
                .is_ok_and(|status| status == WaitStatus::StillAlive)
        {
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}
