use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::NodeError;

/// Where the state is when nobody says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/run/minicni";
/// Where the pins are when nobody says otherwise.
pub const DEFAULT_BPF_DIR: &str = "/sys/fs/bpf/minicni";

/// How long to wait for others that delete devices. One deletion takes milliseconds, a hundred at once a few of them.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);

/// The directory of a node's state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The state below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the leases of a network are.
    pub fn ipam(&self, network: &str) -> PathBuf {
        self.root.join("ipam").join(network)
    }

    /// What is known about the node.
    pub fn facts(&self) -> PathBuf {
        self.root.join("node.json")
    }

    /// What the daemon found wrong.
    pub fn daemon_report(&self) -> PathBuf {
        self.root.join("daemon.json")
    }

    /// How long the calls of the plugin took, see [`latency`](super::latency).
    pub fn latency(&self) -> PathBuf {
        self.root.join("latency")
    }

    /// Takes the lock that serialises the preparation of the node; dropping the file releases it.
    pub fn lock(&self) -> Result<File, NodeError> {
        self.locked("lock")
    }

    /// Takes the lock that lets one call after the other delete devices; dropping the file releases it. `None` where it
    /// could not be had for so long that its holder must hang in the kernel.
    pub fn removal_lock(&self) -> Result<Option<File>, NodeError> {
        let path = self.root.join("removal.lock");
        let file = self.open(&path)?;
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(NodeError::File { action: "lock", path, source }),
        }
        let (sender, receiver) = mpsc::channel();
        // Who gave up is not there to receive the file, and it is dropped.
        let wait = move || sender.send(file.lock().map(|()| file));
        let failed = |source| NodeError::File { action: "lock", path, source };
        if let Err(error) = thread::Builder::new().name("removal".to_owned()).spawn(wait) {
            return Err(failed(error));
        }
        match receiver.recv_timeout(REMOVAL_PATIENCE) {
            Ok(locked) => locked.map(Some).map_err(failed),
            Err(_) => Ok(None),
        }
    }

    /// The file that a daemon keeps locked while it runs; not locked here.
    pub fn daemon_lock(&self) -> Result<File, NodeError> {
        self.open(&self.root.join("daemon.lock"))
    }

    /// Whether a daemon keeps its file locked.
    pub fn has_daemon(&self) -> bool {
        let file = File::open(self.root.join("daemon.lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    fn locked(&self, name: &str) -> Result<File, NodeError> {
        let path = self.root.join(name);
        let file = self.open(&path)?;
        file.lock().map_err(|source| NodeError::File { action: "lock", path, source })?;
        Ok(file)
    }

    fn open(&self, path: &Path) -> Result<File, NodeError> {
        self.create()?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        options.open(path).map_err(|source| NodeError::File { action: "open", path: path.to_owned(), source })
    }

    /// Writes a file of the directory so that a reader sees the old or the new one, also after a crash. The caller is the
    /// only writer: it holds the lock, or is the daemon and writes what only the daemon does.
    pub(super) fn replace(&self, path: &Path, contents: &[u8]) -> Result<(), NodeError> {
        self.create()?;
        let temporary = path.with_extension("new");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(contents)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|source| {
            // The error that matters is the first one.
            let _ = fs::remove_file(&temporary);
            NodeError::File { action: "write", path: path.to_owned(), source }
        })
    }

    /// Fails where the directory is not there and could not be made. Changes nothing.
    pub fn check(&self) -> Result<(), NodeError> {
        let existing = self.root.ancestors().find(|dir| dir.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
        if existing.is_dir() {
            return Ok(());
        }
        let source = io::Error::from(io::ErrorKind::NotADirectory);
        Err(NodeError::File { action: "look at", path: existing.to_owned(), source })
    }

    fn create(&self) -> Result<(), NodeError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(|source| NodeError::File {
            action: "create directory",
            path: self.root.clone(),
            source,
        })
    }
}

/// The kernel's random name for this boot; what was written under another one describes pods that are gone.
pub fn boot_id() -> Result<String, NodeError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(NodeError::File { action: "read", path: path.to_owned(), source }),
    }
}
