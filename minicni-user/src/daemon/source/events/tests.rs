use proptest::prelude::*;

use super::*;

fn problem(reason: Reason, message: &str) -> Problem {
    Problem { reason, message: message.to_owned() }
}

fn missing(message: &str) -> Problem {
    problem(Reason::PodCidrMissing, message)
}

#[test]
fn what_lasts_is_written_once() {
    let (start, mut events) = (Instant::now(), Events::default());
    assert_eq!(events.next(), None);
    events.note(&[missing("a")], start);
    assert_eq!(events.next(), Some(start + SETTLE));
    assert_eq!(events.due(start), None);
    assert_eq!(events.due(start + SETTLE), Some(missing("a")));
    assert_eq!(events.due(start + SETTLE), Some(missing("a")), "it was not written yet");
    events.written(Reason::PodCidrMissing, start + SETTLE);
    events.note(&[missing("a")], start + APART * 2);
    assert_eq!((events.due(start + APART * 2), events.next()), (None, None));
}

#[test]
fn what_passes_is_not_written() {
    let (start, mut events) = (Instant::now(), Events::default());
    events.note(&[missing("a")], start);
    events.note(&[], start + SETTLE / 2);
    events.note(&[missing("a")], start + SETTLE);
    assert_eq!(events.due(start + SETTLE), None);
    assert_eq!(events.next(), Some(start + SETTLE * 2));
}

#[test]
fn problems_of_one_kind_share_an_event_and_the_next_of_that_kind_waits() {
    let (start, mut events) = (Instant::now(), Events::default());
    events.note(&[missing("a"), missing("b"), problem(Reason::RouteFailed, "r")], start);
    let now = start + SETTLE;
    let event = events.due(now).unwrap();
    assert_eq!(event.reason, Reason::PodCidrMissing);
    assert!(event.message.starts_with("a (and 1 more"), "{event}");
    events.written(event.reason, now);
    assert_eq!(events.due(now), Some(problem(Reason::RouteFailed, "r")));
    events.written(Reason::RouteFailed, now);

    events.note(&[missing("a"), missing("b"), missing("c"), problem(Reason::RouteFailed, "r")], now);
    assert_eq!(events.next(), Some(now + APART));
    assert_eq!(events.due(now + SETTLE), None);
    assert!(events.due(now + APART).unwrap().message.starts_with("c (and 2 more"));
}

#[test]
fn a_message_is_never_too_long_for_the_api() {
    let (start, mut events) = (Instant::now(), Events::default());
    events.note(&[missing(&"ä".repeat(900)), missing("ö")], start);
    let event = events.due(start + SETTLE).unwrap();
    assert!(event.message.len() <= LONGEST && event.message.contains("(and 1 more"), "{event}");
}

proptest! {
    #[test]
    fn two_events_of_a_kind_are_always_apart_and_every_lasting_problem_is_told(
        steps in prop::collection::vec((0..400u64, prop::collection::btree_set(0..4usize, 0..4)), 1..40),
    ) {
        let all = [missing("a"), missing("b"), problem(Reason::RouteFailed, "a"), problem(Reason::RouteFailed, "b")];
        let (mut now, mut events) = (Instant::now(), Events::default());
        let mut written: Vec<(Reason, Instant)> = Vec::new();
        let mut present = Vec::new();
        for (seconds, indices) in steps {
            now += Duration::from_secs(seconds);
            present = indices.into_iter().map(|index| all[index].clone()).collect();
            events.note(&present, now);
            while let Some(event) = events.due(now) {
                let apart = |(reason, at): &(Reason, Instant)| *reason != event.reason || now - *at >= APART;
                prop_assert!(written.iter().all(apart));
                prop_assert!(present.iter().any(|problem| problem.reason == event.reason));
                events.written(event.reason, now);
                written.push((event.reason, now));
            }
        }
        // Whatever is there and stays is told in the end.
        now += APART + SETTLE;
        while let Some(event) = events.due(now) {
            events.written(event.reason, now);
        }
        prop_assert_eq!(events.next(), None);
        let told = events.kinds.values().flat_map(|kind| kind.problems.values()).filter(|seen| seen.told).count();
        prop_assert_eq!(told, present.len());
    }
}
