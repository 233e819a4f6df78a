//! How long the calls of the plugin took: `latency` in the state directory.
//!
//! Every call is a process of its own, so they count in a file that all of them map: numbers of 64 bits in the byte order
//! of the machine, each only ever added to, atomically, without a lock. It lives until the next boot, as the pods do.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use memmap2::MmapRaw;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    unistd::linkat,
};

use super::StateDir;
use crate::cni::Command;

/// The first number of the file; the last byte is the version of its layout.
const MAGIC: u64 = u64::from_be_bytes(*b"mnilat\0\x01");

/// The commands that are counted, in their order in the file.
pub const COUNTED: [Command; 5] = [Command::Add, Command::Check, Command::Del, Command::Gc, Command::Status];

/// The upper bounds of the buckets in microseconds; above them is one more bucket.
pub const BOUNDS: [u64; 15] = [
    500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// The codes of errors that are counted, in their order in the file; any other counts as the last.
pub const CODES: [u32; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 100, 101, 102, 103, 104, 999];

const BUCKETS: usize = BOUNDS.len() + 1;
/// Of one result of a command: the sum in microseconds, then the buckets.
const HISTOGRAM: usize = 1 + BUCKETS;
/// Of one command: the histogram of success, that of failure, then a counter for each code.
const COMMAND: usize = 2 * HISTOGRAM + CODES.len();
/// Of the file.
const WORDS: usize = 1 + COUNTED.len() * COMMAND;
const BYTES: usize = WORDS * size_of::<u64>();

/// The calls of one command with one result.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Histogram {
    /// How long all of them took together, in microseconds.
    pub sum: u64,
    /// How many were in each bucket of [`BOUNDS`], and above them; not cumulated.
    pub buckets: [u64; BUCKETS],
}

/// The counters of all calls of the plugin since boot, in a mapped file.
#[derive(Debug)]
pub struct Latencies(MmapRaw);

impl Latencies {
    /// Maps the file, which is made where there is none, or none of this layout. The state directory must be there.
    pub fn open(state: &StateDir) -> io::Result<Self> {
        let path = state.latency();
        match map(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
            // Whoever maps the old one at this moment counts in vain.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                fs::remove_file(&path)?;
                make(&path)?;
            }
            found => return found,
        }
        map(&path)
    }

    /// Counts one call. `code` is that of its error. Commands that are not [`COUNTED`] are not counted.
    pub fn record(&self, command: Command, code: Option<u32>, took: Duration) {
        let Some(base) = base(command) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let histogram = base + if code.is_some() { HISTOGRAM } else { 0 };
        self.add(histogram, micros);
        self.add(histogram + 1 + BOUNDS.partition_point(|bound| *bound < micros), 1);
        if let Some(code) = code {
            let index = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1);
            self.add(base + 2 * HISTOGRAM + index, 1);
        }
    }

    /// The calls of a command that succeeded, or those that failed.
    pub fn histogram(&self, command: Command, failed: bool) -> Histogram {
        let Some(base) = base(command) else { return Histogram::default() };
        let base = base + if failed { HISTOGRAM } else { 0 };
        let mut histogram = Histogram { sum: self.load(base), ..Histogram::default() };
        for (index, count) in histogram.buckets.iter_mut().enumerate() {
            *count = self.load(base + 1 + index);
        }
        histogram
    }

    /// How often a command failed with each of [`CODES`].
    pub fn errors(&self, command: Command) -> [u64; CODES.len()] {
        let mut errors = [0; CODES.len()];
        if let Some(base) = base(command) {
            for (index, count) in errors.iter_mut().enumerate() {
                *count = self.load(base + 2 * HISTOGRAM + index);
            }
        }
        errors
    }

    fn add(&self, index: usize, number: u64) {
        if let Some(word) = self.word(index) {
            word.fetch_add(number, Relaxed);
        }
    }

    fn load(&self, index: usize) -> u64 {
        self.word(index).map_or(0, |word| word.load(Relaxed))
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        if index >= WORDS || self.0.len() < BYTES {
            return None;
        }
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
        let words = self.0.as_mut_ptr().cast::<u64>();
        // SAFETY: the mapping begins at a page, is at least WORDS numbers long and lives as long as `self`; every
        // process that maps the file accesses these numbers atomically alone. Nobody shortens the file: it comes to its
        // name by link, whole, and is never opened for truncation.
        Some(unsafe { AtomicU64::from_ptr(words.add(index)) })
    }
}

/// Where the counters of a command begin.
fn base(command: Command) -> Option<usize> {
    COUNTED.iter().position(|counted| *counted == command).map(|index| 1 + index * COMMAND)
}

/// Maps the file if it is of this layout.
fn map(path: &Path) -> io::Result<Latencies> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // A file of another length may end before what is read of it, which would be a SIGBUS.
    if file.metadata()?.len() == BYTES as u64 {
        let found = Latencies(MmapRaw::map_raw(&file)?);
        if found.load(0) == MAGIC {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Makes the file, unless another process was first. It has no name before it is complete, so that nothing half made stays.
fn make(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = OpenOptions::new().write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits()).open(dir)?;
    let mut contents = [0; BYTES];
    contents[..size_of::<u64>()].copy_from_slice(&MAGIC.to_ne_bytes());
    file.write_all(&contents)?;
    file.sync_all()?;
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        Err(Errno::EEXIST) => Ok(()),
        linked => Ok(linked?),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        (dir, state)
    }

    #[test]
    fn a_call_is_in_the_bucket_of_its_time_with_its_code_and_others_see_it() {
        let (_dir, state) = state();
        let here = Latencies::open(&state).unwrap();
        here.record(Command::Add, None, Duration::from_micros(500));
        here.record(Command::Add, None, Duration::from_micros(501));
        here.record(Command::Add, Some(7), Duration::from_secs(11));
        here.record(Command::Status, Some(12_345), Duration::ZERO);
        here.record(Command::Version, None, Duration::ZERO);
        let there = Latencies::open(&state).unwrap();
        let added = there.histogram(Command::Add, false);
        assert_eq!((added.sum, &added.buckets[..3]), (1_001, &[1, 1, 0][..]));
        let failed = there.histogram(Command::Add, true);
        assert_eq!((failed.sum, failed.buckets[BUCKETS - 1]), (11_000_000, 1));
        assert_eq!(there.errors(Command::Add).iter().sum::<u64>(), 1);
        assert_eq!(there.errors(Command::Add)[6], 1, "code 7");
        assert_eq!(there.errors(Command::Status)[CODES.len() - 1], 1, "a code that nobody knows");
        assert_eq!(there.histogram(Command::Del, false), Histogram::default());
    }

    #[test]
    fn of_calls_at_the_same_time_not_one_is_lost() {
        let (_dir, state) = state();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        Latencies::open(&state).unwrap().record(Command::Del, None, Duration::from_micros(3));
                    }
                });
            }
        });
        let all = Latencies::open(&state).unwrap().histogram(Command::Del, false);
        assert_eq!((all.sum, all.buckets[0]), (12_000, 4_000));
        assert_eq!(fs::read_dir(state.root()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn a_file_of_another_layout_is_made_anew_and_a_directory_that_is_missing_is_an_error() {
        let (_dir, state) = state();
        let mut other = vec![0; BYTES];
        other[0] = 9;
        for bad in [vec![], vec![1; BYTES - 1], other, vec![0; BYTES + 1]] {
            fs::write(state.latency(), bad).unwrap();
            let made = Latencies::open(&state).unwrap();
            made.record(Command::Gc, None, Duration::ZERO);
            assert_eq!(Latencies::open(&state).unwrap().histogram(Command::Gc, false).buckets[0], 1);
        }
        let missing = StateDir::new(state.root().join("missing"));
        assert_eq!(Latencies::open(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!missing.root().exists());
    }
}
