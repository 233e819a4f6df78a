//! Lets the k-th change of a file fail, once or, as after kill -9, for good; and counts the files read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// After so many changes nothing is done any more.
    Die(u32),
    /// After so many changes one fails, as on a full disk.
    Fail(u32),
    Dead,
}

thread_local! {
    static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
    static READS: Cell<u32> = const { Cell::new(0) };
}

/// Runs a call and says how many files it read.
pub(super) fn reads<T>(call: impl FnOnce() -> T) -> (T, u32) {
    READS.set(0);
    let result = call();
    (result, READS.get())
}

pub(super) fn count_read() {
    READS.set(READS.get() + 1);
}

/// Runs a call under a fault. The second value says whether the fault came to pass: after `Die` the call's result never
/// reached anybody.
pub(super) fn with<T>(fault: Fault, call: impl FnOnce() -> T) -> (T, bool) {
    FAULT.set(fault);
    let result = call();
    let left = FAULT.replace(Fault::None);
    let happened = match fault {
        Fault::Die(_) => left == Fault::Dead,
        Fault::Fail(_) => left == Fault::None,
        Fault::None | Fault::Dead => false,
    };
    (result, happened)
}

pub(super) fn step() -> io::Result<()> {
    let (next, fails) = match FAULT.get() {
        Fault::None => (Fault::None, false),
        Fault::Die(0) | Fault::Dead => (Fault::Dead, true),
        Fault::Die(left) => (Fault::Die(left - 1), false),
        Fault::Fail(0) => (Fault::None, true),
        Fault::Fail(left) => (Fault::Fail(left - 1), false),
    };
    FAULT.set(next);
    if fails { Err(io::Error::other("fault")) } else { Ok(()) }
}

/// A step that leaves half of the contents behind.
pub(super) fn tear(file: &mut File, contents: &[u8]) -> io::Result<()> {
    step().inspect_err(|_| file.write_all(&contents[..contents.len() / 2]).unwrap())
}
