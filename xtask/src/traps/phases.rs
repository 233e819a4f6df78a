//! Carries out the cells of one setting, phase by phase.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use minicni::datapath::{Flows, Generations};

use super::{
    bed::{Bed, UDP_TIMEOUT},
    closing,
    conversation::Conversation,
    expect,
    gauges::{Gauges, begun_at, conntrack},
    icmp,
    matrix::{Cell, Kind, Phase, Setting, Traffic},
    outcome::{Check, Miss, Outcome, Verdict, ensure},
    policy, services,
};
use crate::lab::Programs;

/// Fewer exchanges than a promotion needs packets.
const FEW: usize = 4;
/// More of them.
const WARM: usize = 20;
/// Exchanges that are counted.
pub(super) const MEASURED: usize = 100;
/// Conntrack is sure of a UDP flow only two seconds after its begin.
const SURE: Duration = Duration::from_millis(2_100);
/// A delayed acknowledgement of what was last said may follow so much later.
pub(super) const SETTLED: Duration = Duration::from_millis(60);

/// Looks at the cells of a setting in a lab of their own.
pub(super) fn run(setting: Setting, cells: &[Cell], programs: &Programs, step: impl Fn(&str)) -> Vec<Outcome> {
    let mut run = match Bed::new(setting, programs) {
        Ok(bed) => Run { bed, conversations: Vec::new(), switched: false, evicted: false, outcomes: Vec::new() },
        Err(error) => {
            let miss = Miss { expected: "a lab".to_owned(), seen: format!("{error:#}") };
            let verdict = Verdict::from(Err(miss));
            return cells.iter().map(|&cell| Outcome { cell, verdict: verdict.clone(), milliseconds: 0 }).collect();
        }
    };
    for phase in Phase::ALL {
        let of_phase: Vec<_> = cells.iter().copied().filter(|cell| cell.phase == phase).collect();
        if of_phase.is_empty() {
            continue;
        }
        step(&format!("{setting}: {}, {} cells", super::matrix::word(phase), of_phase.len()));
        let done = run.outcomes.len();
        if let Err(error) = run.phase(phase, &of_phase) {
            run.outcomes.truncate(done);
            let miss = Miss { expected: "that the phase can be carried out".to_owned(), seen: format!("{error:#}") };
            let verdict = Verdict::from(Err(miss));
            run.outcomes.extend(of_phase.iter().map(|&cell| Outcome {
                cell,
                verdict: verdict.clone(),
                milliseconds: 0,
            }));
        }
    }
    run.outcomes
}

struct Run {
    bed: Bed,
    conversations: Vec<Conversation>,
    /// Whether the services have their second endpoints.
    switched: bool,
    /// Whether flows have nothing but their shortcuts.
    evicted: bool,
    outcomes: Vec<Outcome>,
}

impl Run {
    fn phase(&mut self, phase: Phase, cells: &[Cell]) -> Result<()> {
        if phase == Phase::Policy {
            let start = Instant::now();
            self.conversations.clear();
            for (cell, verdict) in policy::look(&self.bed, cells, self.switched)? {
                self.outcomes.push(Outcome { cell, verdict, milliseconds: start.elapsed().as_millis() });
            }
            return Ok(());
        }
        self.begin(phase)?;
        if phase == Phase::Close {
            self.close(cells);
            return Ok(());
        }
        let first = self.outcomes.len();
        self.look_at_all(cells);
        match phase {
            Phase::Promoted => self.conntrack_is_sure(first)?,
            Phase::Restart => {
                // All went on without the daemons; and now with them.
                let without = self.outcomes.split_off(first);
                self.bed.lab.start_daemons()?;
                self.look_at_all_again(first, cells, without);
            }
            Phase::Flush => {
                // All went on by what shortcuts there were; and now without them.
                let evicted = self.outcomes.split_off(first);
                self.bed.lab.nodes.iter().try_for_each(|node| Generations::open(&node.pins())?.bump_all())?;
                self.evicted = false;
                self.look_at_all_again(first, cells, evicted);
                self.conntrack_is_sure(first)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn look_at_all(&mut self, cells: &[Cell]) {
        for &cell in cells {
            let start = Instant::now();
            let verdict = self.look(cell).into();
            self.outcomes.push(Outcome { cell, verdict, milliseconds: start.elapsed().as_millis() });
        }
    }

    /// As [`Run::look_at_all`], of cells that were looked at before; what failed then has failed.
    fn look_at_all_again(&mut self, first: usize, cells: &[Cell], before: Vec<Outcome>) {
        self.look_at_all(cells);
        for (outcome, before) in self.outcomes[first..].iter_mut().zip(before) {
            if before.verdict != Verdict::Passed {
                outcome.verdict = before.verdict;
            }
        }
    }

    /// What makes the phase.
    fn begin(&mut self, phase: Phase) -> Result<()> {
        match phase {
            Phase::Idle => sleep(Duration::from_secs(UDP_TIMEOUT + 1)),
            Phase::Backend => {
                services::switch(&mut self.bed)?;
                self.switched = true;
                // UDP knows no connections: the next datagram goes to the new endpoint.
                let udp = self.conversations.iter_mut().filter(|conversation| conversation.traffic != Traffic::Tcp);
                udp.for_each(|conversation| conversation.after_switch = true);
            }
            Phase::Restart => self.bed.stop_daemons()?,
            Phase::Flush => {
                for node in &self.bed.lab.nodes {
                    let mut flows = Flows::open(&node.pins())?;
                    for (key, _) in flows.all()? {
                        flows.remove(&key)?;
                    }
                }
                self.evicted = true;
            }
            Phase::Before | Phase::Promoted | Phase::Close | Phase::Policy => {}
        }
        Ok(())
    }

    fn look(&mut self, cell: Cell) -> Check {
        let Cell { kind, traffic, phase, .. } = cell;
        if !traffic.lasts() {
            let before = Gauges::read(&self.bed)?;
            match traffic {
                Traffic::PathMtu => icmp::path_mtu(&self.bed, kind, phase, self.switched),
                _ => icmp::unreachable(&self.bed, kind, phase, self.switched),
            }?;
            return expect::nothing_invalid(Gauges::read(&self.bed)?.since(before));
        }
        let index = self.conversation(kind, traffic)?;
        let done = self.talk(index, phase);
        if done.is_err() && traffic == Traffic::Tcp {
            // Others are judged by themselves.
            self.conversations.swap_remove(index);
        }
        if done.is_ok() && phase == Phase::Backend && traffic == Traffic::Tcp {
            // The old connection stays with its pod, a new one gets a new pod.
            let mut new = Conversation::open(&self.bed, kind, traffic, true)?;
            new.exchange(&self.bed)?;
            new.close()?;
        }
        done
    }

    /// The conversation of a cell, opened where it is not yet.
    fn conversation(&mut self, kind: Kind, traffic: Traffic) -> Result<usize> {
        let is = |conversation: &Conversation| (conversation.kind, conversation.traffic) == (kind, traffic);
        if let Some(index) = self.conversations.iter().position(is) {
            return Ok(index);
        }
        self.conversations.push(Conversation::open(&self.bed, kind, traffic, self.switched)?);
        Ok(self.conversations.len() - 1)
    }

    fn talk(&mut self, index: usize, phase: Phase) -> Check {
        let (bed, conversation, evicted) = (&self.bed, &mut self.conversations[index], self.evicted);
        let (kind, traffic) = (conversation.kind, conversation.traffic);
        let settle = || {
            if traffic == Traffic::Tcp && kind.may_be_fast() {
                sleep(SETTLED);
            }
        };
        settle();
        let mut exchange = |count: usize| -> Result<Gauges> {
            let before = Gauges::read(bed)?;
            (0..count).try_for_each(|_| conversation.exchange(bed))?;
            Ok(Gauges::read(bed)?.since(before))
        };
        if matches!(phase, Phase::Before | Phase::Idle | Phase::Flush) && !evicted {
            let seen = exchange(FEW)?;
            expect::nothing_invalid(seen)?;
            if traffic != Traffic::Twin {
                expect::before_promotion(kind, seen)?;
            }
        }
        if phase != Phase::Before {
            expect::nothing_invalid(exchange(WARM)?)?;
            let seen = exchange(MEASURED)?;
            expect::nothing_invalid(seen)?;
            if !(evicted && kind.is_direct()) {
                match conversation.twins(bed) {
                    Some(twins) => expect::twins(twins, seen)?,
                    None => expect::path(bed.setting, kind, traffic, seen)?,
                }
            }
        }
        settle();
        Ok(())
    }

    /// Whether conntrack knows every conversation whose cell was passed, and is sure of it.
    fn conntrack_is_sure(&mut self, first: usize) -> Result<()> {
        let speak = |conversations: &mut [Conversation], bed: &Bed| {
            for conversation in conversations {
                // What fails here was judged before, or is below.
                let _ = conversation.exchange(bed);
            }
        };
        speak(&mut self.conversations, &self.bed);
        sleep(SURE);
        let mut tables = Vec::new();
        for node in &self.bed.lab.nodes {
            // Right before it is asked: where everything takes long, conntrack would have forgotten what was said before.
            speak(&mut self.conversations, &self.bed);
            let table = |protocol| conntrack(node, protocol, self.bed.setting.ipv6);
            let udp = table("udp")?;
            tables.push((table("tcp")?, udp));
        }
        for outcome in &mut self.outcomes[first..] {
            let Cell { kind, traffic, .. } = outcome.cell;
            let is = |conversation: &&Conversation| (conversation.kind, conversation.traffic) == (kind, traffic);
            if outcome.verdict != Verdict::Passed || !traffic.lasts() {
                continue;
            }
            let conversation = self.conversations.iter().find(is).context("a passed cell has its conversation")?;
            // The other node has what its pods answer, if it bears the client's address and no twin is answered elsewhere.
            let crosses = matches!(kind, Kind::DirectRemote | Kind::ClusterIpRemote) && traffic != Traffic::Twin;
            let nodes = if crosses { 2 } else { 1 };
            let checks = (1..).zip(&tables).take(nodes).try_for_each(|(node, (tcp, udp))| {
                is_sure(&self.bed, conversation, node, if traffic == Traffic::Tcp { tcp } else { udp })
            });
            outcome.verdict = checks.into();
        }
        Ok(())
    }

    /// Ends all connections, and looks at what is left of them.
    fn close(&mut self, cells: &[Cell]) {
        let mut open = Vec::new();
        for &cell in cells {
            let start = Instant::now();
            let ended = self.conversation(cell.kind, cell.traffic).map_err(Miss::from).and_then(|index| {
                let conversation = self.conversations.swap_remove(index);
                closing::end(&self.bed, conversation)
            });
            open.push((cell, ended, start.elapsed().as_millis()));
        }
        sleep(closing::LINGERS);
        for (cell, ended, milliseconds) in open {
            let verdict = ended.and_then(|ended| closing::nothing_left(&self.bed, &ended)).into();
            self.outcomes.push(Outcome { cell, verdict, milliseconds });
        }
    }
}

/// Whether the conntrack of a node has all entries of a conversation, each ASSURED.
fn is_sure(bed: &Bed, conversation: &Conversation, node: usize, table: &str) -> Check {
    for (origin, count) in conversation.origins(bed)? {
        let entries = begun_at(table, origin);
        let sure = entries.iter().filter(|entry| entry.contains("[ASSURED]")).count();
        let expected = format!("{count} ASSURED in conntrack of node{node} from {origin}");
        ensure(sure >= count, expected, if entries.is_empty() { "none".to_owned() } else { entries.join("; ") })?;
    }
    Ok(())
}
