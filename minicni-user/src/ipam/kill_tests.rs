use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;

use super::fault::{self, Fault};
use super::store_tests::{COOLDOWN, advance, now, open, owner, set, tempdir, usage};
use super::{IpamError, LeaseState, Owner, RangeSet, Store};

fn dual() -> [RangeSet; 2] {
    [set("10.1.0.0/29"), set("fd00::/126")]
}

/// Runs a scenario once for every change of a file at which the call can be killed.
fn killed_at_every_step<T>(scenario: impl Fn(&Path, Fault) -> (T, bool)) {
    for step in 0..100 {
        let dir = tempdir();
        if !scenario(dir.path(), Fault::Die(step)).1 {
            assert!(step > 1, "nothing was killed");
            return;
        }
    }
    panic!("the call never ended");
}

fn leased(store: &Store) -> usize {
    store.list().unwrap().iter().filter(|lease| !matches!(lease.state, LeaseState::Cooling { .. })).count()
}

#[test]
fn an_add_killed_anywhere_leaves_nothing_that_a_del_does_not_remove() {
    killed_at_every_step(|dir, kill| {
        let store = open(dir);
        let outcome = fault::with(kill, || store.allocate(&owner("a"), None, &dual(), &[]));
        open(dir).release(&owner("a")).unwrap();
        assert_eq!((store.owners().unwrap(), leased(&store)), (vec![], 0), "{kill:?}");
        outcome
    });
}

#[test]
fn an_add_killed_anywhere_can_be_repeated_or_is_complete() {
    killed_at_every_step(|dir, kill| {
        let store = open(dir);
        let outcome = fault::with(kill, || store.allocate(&owner("a"), None, &dual(), &[]));
        let again = store.allocate(&owner("a"), None, &dual(), &[]);
        assert!(matches!(again, Ok(_) | Err(IpamError::AlreadyLeased { .. })), "{kill:?} {again:?}");
        assert_eq!((store.addresses_of(&owner("a")).unwrap().len(), leased(&store)), (2, 2), "{kill:?}");
        outcome
    });
}

#[test]
fn a_del_killed_anywhere_is_completed_by_the_next() {
    killed_at_every_step(|dir, kill| {
        let store = open(dir);
        store.allocate(&owner("a"), None, &dual(), &[]).unwrap();
        let outcome = fault::with(kill, || store.release(&owner("a")));
        store.release(&owner("a")).unwrap();
        let cooling = store.list().unwrap();
        assert!(cooling.iter().all(|lease| lease.state == LeaseState::Cooling { since: now() }), "{kill:?}");
        assert_eq!((store.owners().unwrap(), cooling.len()), (vec![], 2), "{kill:?}");
        outcome
    });
}

#[test]
fn an_add_that_fails_anywhere_holds_nothing() {
    // The symlink, and three changes for each of two leases; after them only the cursor is written.
    for step in 0..7 {
        let dir = tempdir();
        let store = open(dir.path());
        let (result, _) = fault::with(Fault::Fail(step), || store.allocate(&owner("a"), None, &dual(), &[]));
        assert!(matches!(result, Err(IpamError::Io { .. })), "{step} {result:?}");
        assert_eq!((store.owners().unwrap(), leased(&store)), (vec![], 0), "{step}");
    }
}

#[test]
fn dropping_an_earlier_boot_is_repeated_when_it_was_killed() {
    killed_at_every_step(|dir, kill| {
        open(dir).allocate(&owner("a"), None, &dual(), &[]).unwrap();
        let outcome = fault::with(kill, || Store::open(dir, "boot-2", COOLDOWN));
        let store = Store::open(dir, "boot-2", COOLDOWN).unwrap();
        assert_eq!((store.owners().unwrap(), store.list().unwrap()), (vec![], vec![]), "{kill:?}");
        store.allocate(&owner("b"), None, &dual(), &[]).unwrap();
        outcome
    });
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Allocate(u8),
    Request(u8, u8),
    Release(u8),
    Advance(u8),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..6u8).prop_map(Op::Allocate),
        1 => (0..6u8, 1..7u8).prop_map(|(n, last)| Op::Request(n, last)),
        3 => (0..6u8).prop_map(Op::Release),
        2 => (1..100u8).prop_map(Op::Advance),
        1 => Just(Op::Sweep),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![3 => Just(Fault::None), 2 => (0..10u32).prop_map(Fault::Die), 1 => (0..10u32).prop_map(Fault::Fail)]
}

/// What the callers were told: the addresses they may use, and when they gave them back.
#[derive(Default)]
struct Model {
    held: BTreeMap<Owner, Vec<IpAddr>>,
    released: BTreeMap<IpAddr, u64>,
}

impl Model {
    fn allocate(&mut self, store: &Store, who: &Owner, requested: &[IpAddr], fault: Fault) {
        let sets = dual();
        let before = store.list().unwrap();
        let (result, happened) = fault::with(fault, || store.allocate(who, None, &sets, requested));
        if let Some(held) = self.held.get(who) {
            let refused = matches!(&result, Err(IpamError::AlreadyLeased { addresses, .. }) if addresses == held);
            assert!(refused, "{result:?}");
            return;
        }
        match result {
            // Killed, the caller never learns what it has; its DEL follows.
            _ if happened && matches!(fault, Fault::Die(_)) => {}
            Ok(got) => {
                assert_eq!(got.len(), 2);
                assert!(requested.iter().all(|address| got.contains(address)), "{requested:?} {got:?}");
                for (address, set) in got.iter().zip(&sets) {
                    assert!(set.contains(*address));
                    assert!(!self.held.values().flatten().any(|held| held == address), "{address} has two owners");
                    let cools = !requested.contains(address)
                        && self.released.get(address).is_some_and(|at| now() - at <= COOLDOWN.as_secs());
                    let not_free = before.iter().filter(|lease| set.contains(lease.address)).filter(
                        |lease| !matches!(lease.state, LeaseState::Cooling { since } if store.has_cooled(since, now())),
                    );
                    assert!(!cools || u128::try_from(not_free.count()).unwrap() == set.size(), "{address} still cools");
                }
                self.held.insert(who.clone(), got);
            }
            Err(IpamError::Taken { address, .. }) => {
                let lease = before.iter().find(|lease| lease.address == address).unwrap();
                assert!(!matches!(lease.state, LeaseState::Cooling { .. }), "{lease:?}");
            }
            Err(IpamError::Exhausted { .. }) => {
                // Only what ADDs that were killed may hold, beside what callers know of, can exhaust the pool.
                assert!(sets.iter().any(|set| usage(store, set).0 == set.size()), "{:?}", store.list());
            }
            Err(IpamError::AlreadyLeased { .. }) => assert_eq!(store.addresses_of(who).unwrap().len(), 2),
            Err(error) => assert!(happened, "{error}"),
        }
    }

    fn release(&mut self, store: &Store, who: &Owner, fault: Fault) {
        let (result, happened) = fault::with(fault, || store.release(who));
        // Whether or not it was killed, the caller no longer uses the addresses.
        for address in self.held.remove(who).unwrap_or_default() {
            self.released.insert(address, now());
        }
        if !happened {
            result.unwrap();
            assert!(!store.owners().unwrap().contains(who));
        }
    }

    fn check(&self, store: &Store) {
        for (who, held) in &self.held {
            assert_eq!(&store.addresses_of(who).unwrap(), held);
        }
        assert!(!store.list().unwrap().iter().any(|lease| matches!(lease.state, LeaseState::Unreadable { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_killed_no_address_has_two_owners_and_none_is_lost(
        steps in proptest::collection::vec((op(), fault()), 1..60),
    ) {
        let dir = tempdir();
        let mut model = Model::default();
        for (op, fault) in steps {
            let store = open(dir.path());
            match op {
                Op::Allocate(n) => model.allocate(&store, &owner(&format!("c{n}")), &[], fault),
                Op::Request(n, last) => {
                    model.allocate(&store, &owner(&format!("c{n}")), &[IpAddr::from([10, 1, 0, last])], fault);
                }
                Op::Release(n) => model.release(&store, &owner(&format!("c{n}")), fault),
                Op::Advance(seconds) => advance(seconds.into()),
                Op::Sweep => drop(fault::with(fault, || store.sweep())),
            }
            model.check(&store);
        }
        let store = open(dir.path());
        for owner in store.owners().unwrap() {
            store.release(&owner).unwrap();
        }
        advance(121);
        let all: BTreeSet<IpAddr> = (0..6)
            .map(|n| store.allocate(&owner(&format!("last{n}")), None, &[set("10.1.0.0/29")], &[]).unwrap()[0])
            .collect();
        prop_assert_eq!(all.len(), 6);
    }
}

const WORKER_DIR: &str = "MINICNI_TEST_IPAM_DIR";

#[test]
#[ignore = "the process that the next test kills"]
fn adds_and_dels_until_it_is_killed() {
    let Some(dir) = std::env::var_os(WORKER_DIR) else { return };
    for n in 0.. {
        let store = Store::open(Path::new(&dir), "boot-1", Duration::ZERO).unwrap();
        let owner = owner(&format!("p{}-{n}", std::process::id()));
        store.allocate(&owner, None, &[set("10.1.0.0/29"), set("fd00::/126")], &[]).unwrap();
        store.release(&owner).unwrap();
    }
}

#[test]
fn processes_killed_for_real_lose_no_address() {
    let dir = tempdir();
    let store = open(dir.path());
    for round in 0..20u64 {
        let spawn = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "ipam::kill_tests::adds_and_dels_until_it_is_killed", "--ignored"])
                .env(WORKER_DIR, dir.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut workers = [spawn(), spawn()];
        std::thread::sleep(Duration::from_micros(30_000 + round * 777));
        for worker in &mut workers {
            assert!(worker.try_wait().unwrap().is_none(), "a worker failed");
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
        let mut seen = BTreeSet::new();
        for owner in store.owners().unwrap() {
            assert!(store.addresses_of(&owner).unwrap().into_iter().all(|address| seen.insert(address)));
            store.release(&owner).unwrap();
        }
        assert_eq!((store.owners().unwrap(), leased(&store)), (vec![], 0));
    }
    assert!(std::fs::read_link(dir.path().join("last")).is_ok(), "no worker ever got an address");
}
