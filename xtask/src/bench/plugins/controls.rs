//! What no plugin can be faster than, and what tells whether the machine was the same all the time.

use std::{os::fd::AsFd as _, path::Path, process::Command, time::Instant};

use anyhow::{Result, bail};
use minicni::link::{MacAddress, Netns, Socket, VethEnd, delete_link, veth};
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::peers::{execute, milliseconds};
use crate::bench::statistics::Summary;

/// By how much the halves of a run may differ.
const STEADY: f64 = 1.3;
/// By how much one in a hundred may be slower than the median.
const CALM: f64 = 5.0;

/// Milliseconds, in the order in which they were taken.
#[derive(Debug, Default)]
pub(in crate::bench) struct Controls {
    process: Vec<f64>,
    veth_add: Vec<f64>,
    veth_del: Vec<f64>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(in crate::bench) struct Summaries {
    /// A program that does nothing, executed as a plugin is.
    pub(in crate::bench) process: Summary,
    /// Its median in the first half of the run.
    pub(in crate::bench) process_first_half: f64,
    /// Its median in the second half.
    pub(in crate::bench) process_second_half: f64,
    /// A veth pair is made, one end of it in a container.
    pub(in crate::bench) veth_add: Summary,
    /// A veth pair is deleted.
    pub(in crate::bench) veth_del: Summary,
}

impl Controls {
    /// Executes `true`.
    pub(in crate::bench) fn process(&mut self) -> Result<()> {
        let (time, output) = execute(Command::new("true").env_clear(), b"")?;
        if !output.status.success() {
            bail!("true ended with {}", output.status);
        }
        self.process.push(time);
        Ok(())
    }

    /// Makes a veth pair from this thread's namespace into another, and deletes it.
    pub(in crate::bench) fn veth(&mut self, netns: &Path) -> Result<()> {
        let netns = Netns::open(netns)?;
        let mut socket = Socket::open()?;
        let end = |name, last| VethEnd { name, ifindex: None, mac: MacAddress([2, 0, 0, 0, 2, last]), mtu: 1500 };
        let pair = veth(&end("control", 1), &end("eth0", 2), netns.as_fd())?;
        let start = Instant::now();
        socket.batch(vec![pair])?;
        self.veth_add.push(milliseconds(start));
        let ifindex = if_nametoindex("control")?;
        let start = Instant::now();
        socket.batch(vec![delete_link(ifindex)])?;
        self.veth_del.push(milliseconds(start));
        Ok(())
    }

    pub(in crate::bench) fn summary(&self) -> Summaries {
        let (first, second) = self.process.split_at(self.process.len() / 2);
        Summaries {
            process: Summary::of(&self.process),
            process_first_half: Summary::of(first).median,
            process_second_half: Summary::of(second).median,
            veth_add: Summary::of(&self.veth_add),
            veth_del: Summary::of(&self.veth_del),
        }
    }
}

impl Summaries {
    /// Whether a process started as fast at the end as at the beginning. Where not, something else was going on, and
    /// what was measured before and after it does not belong together.
    pub(in crate::bench) fn steady(&self) -> bool {
        let (one, other) = (self.process_first_half, self.process_second_half);
        one.max(other) <= STEADY * one.min(other)
    }

    /// Whether hardly any process was held up, so that the slowest calls of a plugin are slow by themselves.
    pub(in crate::bench) fn calm(&self) -> bool {
        self.process.p99 <= CALM * self.process.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_that_differ_by_a_third_between_the_halves_of_a_run_are_not_steady() {
        for (second, steady) in [(1.0, true), (1.25, true), (0.8, true), (1.34, false), (0.7, false)] {
            let process = [vec![1.0; 10], vec![second; 10]].concat();
            let controls = Controls { process, veth_add: vec![1.0], veth_del: vec![1.0] };
            assert_eq!(controls.summary().steady(), steady, "{second}");
        }
    }
}
