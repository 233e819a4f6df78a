//! Executing a plugin as a runtime does: a clean environment, the configuration on a pipe, an end by the clock.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use minicni::link::Netns;
use serde_json::Value;

use super::answer::Answer;

/// Where Debian has the plugins that others delegate to, such as `host-local`.
pub(super) const CNI_PATH: &str = "/usr/lib/cni";
/// Every version of the specification, oldest first.
pub(super) const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// How long a command may take. The reference plugins wait up to 10 s for an IPv6 address to settle.
const LIMIT: Duration = Duration::from_secs(15);
/// How long after the plugin's end its pipes may stay open.
const CLOSING: Duration = Duration::from_millis(500);

/// The plugin under test.
#[derive(Debug)]
pub(super) struct Plugin {
    /// The executable.
    pub(super) path: PathBuf,
    /// Its file name, which a configuration gives as `type`.
    pub(super) name: String,
    /// What VERSION lists.
    pub(super) versions: Vec<String>,
}

impl Plugin {
    /// Asks an executable for its versions; none where it does not answer.
    pub(super) fn new(path: &Path, anywhere: &Netns) -> Result<Self> {
        let path = path.canonicalize().with_context(|| format!("find the plugin {}", path.display()))?;
        let name = path.file_name().context("a plugin has a file name")?.to_string_lossy().into_owned();
        let answer = Call::new(&path, anywhere, "VERSION").run()?;
        let document: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let versions = document["supportedVersions"].as_array().into_iter().flatten();
        let versions = versions.filter_map(|version| version.as_str().map(str::to_owned)).collect();
        Ok(Self { path, name, versions })
    }

    /// Whether VERSION lists a version.
    pub(super) fn serves(&self, version: &str) -> bool {
        self.versions.iter().any(|served| served == version)
    }

    /// The newest version that it and the suite know.
    pub(super) fn newest(&self) -> &'static str {
        VERSIONS.into_iter().rev().find(|version| self.serves(version)).unwrap_or("1.0.0")
    }
}

/// What the plugin finds on its standard input.
#[derive(Clone, Debug)]
enum Input {
    Text(String),
    /// A pipe that nobody writes to and nobody closes.
    Open,
    /// Reading a directory fails.
    Unreadable,
}

/// One command to be executed.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    program: &'a Path,
    host: &'a Netns,
    environment: BTreeMap<String, String>,
    input: Input,
    limit: Duration,
}

impl<'a> Call<'a> {
    /// A command with an empty standard input and no variable but `CNI_COMMAND`, `CNI_PATH` and `PATH`.
    pub(super) fn new(program: &'a Path, host: &'a Netns, command: &str) -> Self {
        let call =
            Self { program, host, environment: BTreeMap::new(), input: Input::Text(String::new()), limit: LIMIT };
        call.env("CNI_COMMAND", command).env("CNI_PATH", CNI_PATH).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// With another value for a variable.
    pub(super) fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.environment.insert(name.to_owned(), value.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Without a variable.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// With this configuration.
    pub(super) fn config(self, config: &Value) -> Self {
        self.text(&config.to_string())
    }

    /// With this text on standard input.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.input = Input::Text(text.to_owned());
        self
    }

    /// With a standard input that stays open and empty; the plugin gets a few seconds.
    pub(super) fn open_input(mut self) -> Self {
        (self.input, self.limit) = (Input::Open, Duration::from_secs(3));
        self
    }

    /// With a standard input that cannot be read.
    pub(super) fn unreadable_input(mut self) -> Self {
        self.input = Input::Unreadable;
        self
    }

    /// Executes it to its end.
    pub(super) fn run(&self) -> Result<Answer> {
        self.start()?.finish()
    }

    /// Starts it.
    pub(super) fn start(&self) -> Result<Running> {
        let mut command = Command::new(self.program);
        command.current_dir("/").env_clear().envs(&self.environment);
        command.stdin(match self.input {
            Input::Unreadable => Stdio::from(File::open("/")?),
            Input::Text(_) | Input::Open => Stdio::piped(),
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let child = self.host.run(|| command.spawn())?;
        let mut child = child.with_context(|| format!("execute {}", self.program.display()))?;
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let mut stdin = child.stdin.take();
        if let Input::Text(text) = &self.input
            && let Some(mut pipe) = stdin.take()
        {
            // A plugin that answers without reading its input closes it.
            let _ = pipe.write_all(text.as_bytes());
        }
        Ok(Running { child, _stdin: stdin, stdout, stderr, start, limit: self.limit })
    }
}

/// A plugin at work.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    _stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    start: Instant,
    limit: Duration,
}

impl Running {
    /// Waits for its end; a plugin that exceeds its time is killed.
    pub(super) fn finish(mut self) -> Result<Answer> {
        let mut late = false;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.start.elapsed() > self.limit {
                late = true;
                self.child.kill()?;
                break self.child.wait()?;
            }
            thread::sleep(Duration::from_micros(500));
        };
        let took = self.start.elapsed();
        let (stdout, stderr) = (self.stdout.recv_timeout(CLOSING).ok(), self.stderr.recv_timeout(CLOSING).ok());
        let held_open = stdout.is_none() || stderr.is_none();
        Ok(Answer {
            status: status.code().filter(|_| !late),
            stdout: stdout.unwrap_or_default(),
            stderr: stderr.unwrap_or_default(),
            held_open,
            took,
        })
    }

    /// Ends it with SIGKILL after a while, and waits as a runtime does: until its pipes are closed, by those that it
    /// executed too.
    pub(super) fn kill_after(mut self, delay: Duration) -> Result<()> {
        thread::sleep(delay.saturating_sub(self.start.elapsed()));
        self.child.kill()?;
        self.child.wait()?;
        for pipe in [&self.stdout, &self.stderr] {
            let _ = pipe.recv_timeout(self.limit);
        }
        Ok(())
    }
}

/// Reads a pipe to its end on a thread of its own.
fn drain(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        // Nobody listens any more where the pipe was held open too long.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
