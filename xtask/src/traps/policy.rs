//! A policy that drops everything, inserted while flows are on the fast path.

use std::{
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    bed::Bed,
    conversation::Conversation,
    expect,
    gauges::Gauges,
    matrix::{Cell, Traffic},
    outcome::{Check, Miss, Verdict, ensure},
    phases::{MEASURED, SETTLED},
};
use crate::lab::rules::policy;

/// Within this time, a rule that was inserted later has to stop a flow on the fast path.
const STOPS_WITHIN: Duration = Duration::from_millis(300);
/// An answer that takes longer does not arrive.
const PATIENCE: Duration = Duration::from_millis(100);
/// After the policy is gone, UDP goes on within this time.
const RETURNS_WITHIN: Duration = Duration::from_secs(2);
/// More exchanges than a promotion needs.
const WARM: usize = 40;

/// A flow under the policy.
struct Flow {
    cell: Cell,
    state: State,
}

enum State {
    Begun(Conversation),
    /// It did not even begin.
    Broken(Miss),
}

/// Looks at all cells at once: flows begin, the policy comes, they stop, it goes, and those over UDP go on.
pub(super) fn look(bed: &Bed, cells: &[Cell], switched: bool) -> Result<Vec<(Cell, Verdict)>> {
    let begin = |cell: &Cell| {
        let begun = Conversation::open(bed, cell.kind, cell.traffic, switched).and_then(|mut conversation| {
            (0..WARM).try_for_each(|_| conversation.exchange(bed))?;
            Ok(conversation)
        });
        Flow { cell: *cell, state: begun.map_or_else(|error| State::Broken(error.into()), State::Begun) }
    };
    let mut flows: Vec<_> = cells.iter().map(begin).collect();
    // Proofs are void after a while of silence, and all others spoke meanwhile.
    for work in [takes_its_path, warm] {
        for flow in &mut flows {
            if let State::Begun(conversation) = &mut flow.state
                && let Err(miss) = work(bed, flow.cell, conversation)
            {
                flow.state = State::Broken(miss);
            }
        }
    }
    policy::deny(bed.node(), bed.backend, bed.setting.ipv6)?;
    let start = Instant::now();
    // All speak at once, so that none waits for the silence of another.
    let stopped: Vec<_> = thread::scope(|scope| {
        let speakers: Vec<_> =
            flows.iter_mut().map(|flow| scope.spawn(move || has_stopped(bed, flow, start))).collect();
        speakers.into_iter().map(|speaker| speaker.join().unwrap_or_else(|_| Err(nothing()))).collect()
    });
    policy::allow(bed.node(), bed.backend, bed.setting.ipv6)?;
    let judged = flows.into_iter().zip(stopped);
    Ok(judged.map(|(flow, stopped)| (flow.cell, stopped.and_then(|()| returns(bed, flow)).into())).collect())
}

fn warm(bed: &Bed, _: Cell, conversation: &mut Conversation) -> Check {
    Ok((0..WARM).try_for_each(|_| conversation.exchange(bed))?)
}

/// A rule that comes now is to stop what is on the fast path, so it has to be there.
fn takes_its_path(bed: &Bed, cell: Cell, conversation: &mut Conversation) -> Check {
    warm(bed, cell, conversation)?;
    sleep(SETTLED);
    let before = Gauges::read(bed)?;
    (0..MEASURED).try_for_each(|_| conversation.exchange(bed))?;
    expect::path(bed.setting, cell.kind, cell.traffic, Gauges::read(bed)?.since(before))
}

fn nothing() -> Miss {
    Miss { expected: "that it works".to_owned(), seen: "nothing".to_owned() }
}

/// Speaks until nobody answers. Then nobody may answer any more.
fn has_stopped(bed: &Bed, flow: &mut Flow, start: Instant) -> Check {
    let conversation = match &mut flow.state {
        State::Broken(miss) => return Err(std::mem::replace(miss, nothing())),
        State::Begun(conversation) => conversation,
    };
    let expected = format!("no answer later than {STOPS_WITHIN:?} after the policy");
    let mut last = Duration::ZERO;
    while conversation.exchange_within(bed, PATIENCE).is_ok() {
        last = start.elapsed();
        ensure(last <= STOPS_WITHIN, &expected, format!("one after {last:?}"))?;
        sleep(Duration::from_millis(1));
    }
    let again = conversation.exchange_within(bed, PATIENCE);
    ensure(again.is_err(), expected, format!("silence after {last:?}, and an answer later"))
}

/// After the policy.
fn returns(bed: &Bed, flow: Flow) -> Check {
    let State::Begun(mut conversation) = flow.state else { return Ok(()) };
    // TCP waits ever longer until it tries again.
    if flow.cell.traffic == Traffic::Tcp {
        return Ok(());
    }
    let start = Instant::now();
    loop {
        match conversation.exchange_within(bed, PATIENCE) {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > RETURNS_WITHIN => {
                return ensure(false, "that it goes on when the policy is gone", format!("{error:#}"));
            }
            Err(_) => {}
        }
    }
}
