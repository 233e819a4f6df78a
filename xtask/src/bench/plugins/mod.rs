//! What measures plugins by the clock, whatever they are called with: the plugins, the pods, and the controls.

pub(super) mod controls;
mod memory;
pub(super) mod peers;

use std::fs;

use anyhow::Result;

use self::{
    memory::InMemory,
    peers::{PEERS, Peer, Pod, host_local_dir},
};
use crate::{
    build, debian,
    lab::{self, Lab, Programs, directory},
};

/// The name of everything that a run makes.
const LAB: &str = "minicni-bench";

/// Nodes on which plugins are executed, with their state in memory.
#[derive(Debug)]
pub(super) struct Bed {
    // Dropped before the lab, whose directories it is mounted in.
    _in_memory: InMemory,
    pub(super) lab: Lab,
}

/// Builds the programs, and installs what is measured beside them.
pub(super) fn prepare() -> Result<Programs> {
    lab::need_root()?;
    let programs = build::portable()?;
    if !PEERS.iter().all(|file| fs::exists(file).unwrap_or(false)) {
        debian::install(
            &["containernetworking-plugins"],
            "bridge, ptp and host-local are what minicni is measured against",
        )?;
    }
    Ok(programs)
}

impl Bed {
    pub(super) fn new(nodes: u8, programs: Programs) -> Result<Self> {
        let states = (1..=nodes).map(|number| directory(LAB).join(format!("node{number}/state")));
        let in_memory: Vec<_> = states.chain([host_local_dir()]).collect();
        InMemory::remove_left(&in_memory);
        let lab = Lab::new(LAB, nodes, programs)?;
        Ok(Self { lab, _in_memory: InMemory::new(&in_memory)? })
    }
}

/// The first pod of a network makes what the others find.
pub(super) fn warm_up<'a>(peers: impl IntoIterator<Item = &'a Peer>, pod: &mut Pod) -> Result<()> {
    for peer in peers {
        peer.call("ADD", pod)?;
        peer.call("DEL", pod)?;
    }
    Ok(())
}

/// Says now and then how far it is.
pub(super) fn progress(what: &str, round: usize, rounds: usize, every: usize) {
    if round.is_multiple_of(every) || round == rounds {
        eprintln!("{what}: {round} of {rounds} rounds");
    }
}
