//! What `test kernels` runs in a guest, and what its output counts.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::Serialize;

use super::{kernel::Release, wiring};

/// Random packets for each property of the datapath.
const CASES: &str = "PROPTEST_CASES=8";

/// What is promised within a time takes longer in an emulated guest that shares its machine with another.
const SLOWER: &str = "MINICNI_TEST_SLOWER=5";

/// What is run in a guest of its own.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// Packets through the programs by `BPF_PROG_TEST_RUN`.
    Packets,
    /// Plugin and daemon with real traffic, where they ask kernels for different things.
    Wiring,
    /// The trap table.
    Traps,
}

/// What was built to be run in guests.
pub(super) struct Built {
    pub(super) xtask: PathBuf,
    pub(super) programs: PathBuf,
    /// Test programs by their names.
    pub(super) tests: Vec<(String, PathBuf)>,
}

impl Part {
    /// Whether it can be run under a kernel. Before Linux 5.14 TCP stays in the stack, where the trap table looks for it on the fast
    /// path; and Linux 5.10 lets nobody say at which interface a packet of `BPF_PROG_TEST_RUN` entered
    /// (`convert___skb_to_skb` in `net/bpf/test_run.c`).
    pub(super) fn is_for(self, release: Release) -> bool {
        release != Release::Bullseye || matches!(self, Self::Wiring)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Wiring => "wiring",
            Self::Traps => "traps",
        }
    }

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Packets => "packets through the programs",
            Self::Wiring => "plugin and daemon",
            Self::Traps => "the trap table",
        }
    }

    /// What is run, as arguments of `env`.
    pub(super) fn words(self, release: Release, built: &Built, only: &[String]) -> Vec<OsString> {
        match self {
            Self::Packets => [CASES.into(), built.test("datapath").into(), "--test-threads=1".into()].into(),
            Self::Wiring => [SLOWER.into(), "sh".into(), "-c".into(), wiring_script(release, built).into()].into(),
            Self::Traps => {
                let mut words: Vec<OsString> = vec![built.xtask.clone().into()];
                words.extend(["test", "traps", "--quick", "--programs"].map(OsString::from));
                words.push(built.programs.clone().into());
                words.extend(only.iter().flat_map(|only| ["--only".into(), only.into()]));
                words
            }
        }
    }

    /// Whether everything that was asked for passed, and how much that is, by what was written.
    pub(super) fn counted(self, release: Release, output: &str) -> (bool, String) {
        match self {
            Self::Packets => {
                let Tests { passed, failed, left_out } = Tests::of(output);
                (passed > 0 && failed + left_out == 0, format!("{passed} of {} tests", passed + failed + left_out))
            }
            Self::Wiring => {
                let Tests { passed, failed, left_out } = Tests::of(output);
                let wanted: usize = wiring::tests(release).iter().map(|(_, names)| names.len()).sum();
                let all = passed + failed + left_out;
                (passed == wanted && failed == 0, format!("{passed} of {wanted} tests; there are {all}"))
            }
            Self::Traps => {
                let line = output.lines().rev().find(|line| line.contains(" cells passed, "));
                let line = line.unwrap_or("no cells were counted");
                (line.contains(" 0 failed, 0 not run"), line.to_owned())
            }
        }
    }
}

impl Built {
    fn test<'a>(&'a self, name: &'a str) -> &'a Path {
        let found = self.tests.iter().find(|(there, _)| there == name);
        found.map_or(Path::new(name), |(_, path)| path)
    }
}

/// Runs the tests of one program after the other, whatever becomes of them.
fn wiring_script(release: Release, built: &Built) -> String {
    let line = |(program, names): (&str, Vec<&str>)| {
        format!("'{}' --test-threads=1 --exact {} || status=1\n", built.test(program).display(), names.join(" "))
    };
    let lines: String = wiring::tests(release).into_iter().map(line).collect();
    format!("status=0\n{lines}exit $status")
}

/// What the lines of test programs count, added up.
#[derive(Debug, Default, Eq, PartialEq)]
struct Tests {
    passed: usize,
    failed: usize,
    left_out: usize,
}

impl Tests {
    fn of(output: &str) -> Self {
        let mut tests = Self::default();
        // `test result: ok. 21 passed; 0 failed; 0 ignored; 0 measured; 43 filtered out; finished in 43.84s`
        for counts in output.lines().filter_map(|line| line.split_once("test result: ")) {
            for count in counts.1.split(['.', ';']) {
                let Some((number, what)) = count.trim().split_once(' ') else { continue };
                let Ok(number) = number.parse::<usize>() else { continue };
                match what {
                    "passed" => tests.passed += number,
                    "failed" => tests.failed += number,
                    "filtered out" | "ignored" => tests.left_out += number,
                    _ => {}
                }
            }
        }
        tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 2 tests\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.84s\n\
        test result: FAILED. 4 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";

    #[test]
    fn the_counts_of_several_programs_are_added_up() {
        assert_eq!(Tests::of(OUTPUT), Tests { passed: 6, failed: 1, left_out: 4 });
    }

    #[test]
    fn packets_pass_if_no_test_failed_and_none_was_left_out() {
        let all = "test result: ok. 64 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Part::Packets.counted(Release::Sid, all), (true, "64 of 64 tests".to_owned()));
        assert!(!Part::Packets.counted(Release::Sid, OUTPUT).0);
        assert!(!Part::Packets.counted(Release::Sid, "running 64 tests\nKilled").0);
    }

    #[test]
    fn a_test_that_is_not_there_by_its_name_is_missed() {
        let wanted: usize = wiring::tests(Release::Trixie).iter().map(|(_, names)| names.len()).sum();
        let line =
            |passed| format!("test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 9 filtered out");
        assert!(Part::Wiring.counted(Release::Trixie, &line(wanted)).0);
        assert!(!Part::Wiring.counted(Release::Trixie, &line(wanted - 1)).0);
    }

    #[test]
    fn cells_that_a_kernel_cannot_run_are_a_failure() {
        let line = |not_run| format!("9 cells passed, 0 failed, {not_run} not run, 5 not asked for, in 1 s");
        assert!(Part::Traps.counted(Release::Sid, &line(0)).0);
        assert!(!Part::Traps.counted(Release::Sid, &line(1)).0);
        assert!(!Part::Traps.counted(Release::Sid, "").0);
    }
}
