//! Programs in the background, whose process ids are on disk: whatever a run that was killed left is ended by the next.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use minicni::link::Netns;
use rustix::process::Signal;

use crate::lab::running::{self, Running};

/// How long a program may take to end.
const LIMIT: Duration = Duration::from_secs(20);
const EXTENSION: &str = "process";

/// A running program. It is killed when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    pid_file: PathBuf,
    keep: bool,
}

impl Process {
    /// Starts a program inside a network namespace. Its log, which grows, and its process id go to a directory.
    pub fn start(dir: &Path, name: &str, netns: &Netns, command: &mut Command) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let (log, pid_file) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.{EXTENSION}")));
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A kept one stays when the terminal is closed.
        command.process_group(0);
        let child = netns.run(|| command.spawn())?.with_context(|| format!("start {name}"))?;
        let process = Self { name: name.to_owned(), child, log, pid_file, keep: false };
        let pid = process.id();
        fs::write(&process.pid_file, running::record(pid))?;
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails with the end of its log if it has ended.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.ended()? else { return Ok(()) };
        bail!("{} ended with {status}:\n{}", self.name, self.end_of_log())
    }

    /// What it said last.
    pub fn end_of_log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it with SIGKILL, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait()?;
        Ok(fs::remove_file(&self.pid_file)?)
    }

    /// Leaves it running when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whether it was killed before is known by its file.
        if !self.keep && self.pid_file.exists() {
            let _ = self.kill();
        }
    }
}

/// Ends all programs whose process ids are in a directory, whoever started them.
pub fn end_all(dir: &Path) -> Result<()> {
    for file in crate::lab::entries(dir)? {
        if file.extension().is_some_and(|extension| extension == EXTENSION) {
            end(&file)?;
        }
    }
    Ok(())
}

fn end(file: &Path) -> Result<()> {
    let record = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    if let Some(process) = Running::recorded(&record)? {
        process.signal(Signal::KILL)?;
        ensure!(process.ends_within(LIMIT)?, "the process of {} does not end", file.display());
    }
    Ok(fs::remove_file(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_number_alone() {
        let dir = std::env::temp_dir().join(format!("minicni-process-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = sleeper.id().cast_signed();
        let file = dir.join("sleeper.process");

        fs::write(&file, format!("{pid} 1")).unwrap();
        end_all(&dir).unwrap();
        assert!(sleeper.try_wait().unwrap().is_none(), "another process was killed");
        assert!(!file.exists());

        fs::write(&file, running::record(pid)).unwrap();
        end_all(&dir).unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let _ = sleeper.wait();
        fs::remove_dir_all(&dir).unwrap();
    }
}
