//! A policy that drops everything, inserted while flows are on the fast path.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    bed::Bed,
    conversation::Conversation,
    matrix::{Cell, Traffic},
    outcome::{Check, Miss, Verdict, ensure},
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
    /// Answers still arrive.
    Goes(Conversation),
    /// They do not, since so long after the insertion.
    Stopped(Conversation, Duration),
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
        Flow { cell: *cell, state: begun.map_or_else(|error| State::Broken(error.into()), State::Goes) }
    };
    let mut flows: Vec<_> = cells.iter().map(begin).collect();
    // Proofs are void after a while of silence, and all others spoke meanwhile.
    for flow in &mut flows {
        if let State::Goes(conversation) = &mut flow.state
            && let Err(error) = (0..WARM).try_for_each(|_| conversation.exchange(bed))
        {
            flow.state = State::Broken(error.into());
        }
    }
    policy::deny(bed.node(), bed.backend, bed.setting.ipv6)?;
    let start = Instant::now();
    while start.elapsed() < STOPS_WITHIN && flows.iter().any(|flow| matches!(flow.state, State::Goes(_))) {
        for flow in &mut flows {
            flow.state = match std::mem::replace(&mut flow.state, State::Broken(nothing())) {
                State::Goes(mut conversation) => {
                    let asked = start.elapsed();
                    match conversation.exchange_within(bed, PATIENCE) {
                        Ok(()) => State::Goes(conversation),
                        Err(_) => State::Stopped(conversation, asked),
                    }
                }
                other => other,
            };
        }
        sleep(Duration::from_millis(1));
    }
    let stopped: Vec<_> = flows.iter_mut().map(|flow| has_stopped(bed, flow)).collect();
    policy::allow(bed.node(), bed.backend, bed.setting.ipv6)?;
    let judged = flows.into_iter().zip(stopped);
    Ok(judged.map(|(flow, stopped)| (flow.cell, stopped.and_then(|()| returns(bed, flow)).into())).collect())
}

fn nothing() -> Miss {
    Miss { expected: "that it works".to_owned(), seen: "nothing".to_owned() }
}

/// While the policy is there.
fn has_stopped(bed: &Bed, flow: &mut Flow) -> Check {
    let expected = format!("no answer later than {STOPS_WITHIN:?} after the policy");
    match &mut flow.state {
        State::Broken(miss) => Err(std::mem::replace(miss, nothing())),
        State::Goes(_) => ensure(false, expected, "answers still arrive"),
        State::Stopped(conversation, after) => {
            let again = conversation.exchange_within(bed, PATIENCE);
            ensure(again.is_err(), expected, format!("silence {after:?} after it, and an answer later"))
        }
    }
}

/// After the policy.
fn returns(bed: &Bed, flow: Flow) -> Check {
    let State::Stopped(mut conversation, _) = flow.state else { return Ok(()) };
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
