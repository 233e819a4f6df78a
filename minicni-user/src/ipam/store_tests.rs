use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::{IpamError, LeaseState, Owner, Range, RangeSet, Store};

pub(super) const COOLDOWN: Duration = Duration::from_mins(2);

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1000) };
}

pub(super) fn now() -> u64 {
    NOW.get()
}

pub(super) fn advance(seconds: u64) {
    NOW.set(NOW.get() + seconds);
}

/// A directory where stores live in earnest, on tmpfs, if there is one.
pub(super) fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// How many addresses of a set are in use, and how many cool.
pub(super) fn usage(store: &Store, set: &RangeSet) -> (u128, u128) {
    let leases = store.list().unwrap();
    let count = |cools: bool| {
        let of_set = leases.iter().filter(|lease| set.contains(lease.address)).filter(|lease| match lease.state {
            LeaseState::Cooling { since } => cools && !store.has_cooled(since, (store.clock)()),
            LeaseState::Leased { .. } | LeaseState::Unreadable { .. } => !cools,
        });
        u128::try_from(of_set.count()).unwrap()
    };
    (count(false), count(true))
}

pub(super) fn open(dir: &Path) -> Store {
    Store { clock: now, ..Store::open(dir, "boot-1", COOLDOWN).unwrap() }
}

pub(super) fn owner(name: &str) -> Owner {
    Owner::new(name, "eth0").unwrap()
}

pub(super) fn set(subnet: &str) -> RangeSet {
    RangeSet::new(vec![Range::new(subnet.parse().unwrap(), None, None, None).unwrap()]).unwrap()
}

pub(super) fn one(store: &Store, name: &str, subnet: &str) -> String {
    store.allocate(&owner(name), None, &[set(subnet)], &[]).unwrap()[0].to_string()
}

pub(super) fn lease_file(store: &Store, address: &str) -> PathBuf {
    store.lease_path(address.parse().unwrap())
}

#[test]
fn a_full_walk_of_a_29_hands_out_exactly_the_usable_addresses() {
    let dir = tempdir();
    let store = open(dir.path());
    let range = Range::new("10.1.0.0/29".parse().unwrap(), None, None, Some("10.1.0.1".parse().unwrap())).unwrap();
    let sets = [RangeSet::new(vec![range]).unwrap()];
    let got: Vec<String> =
        (0..5).map(|n| store.allocate(&owner(&format!("c{n}")), None, &sets, &[]).unwrap()[0].to_string()).collect();
    assert_eq!(got, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
    let error = store.allocate(&owner("c9"), None, &sets, &[]).unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { size: 5, leased: 5, unreadable: 0, .. }));
    assert!(
        error
            .to_string()
            .starts_with("no free address in 10.1.0.0/29 (10.1.0.1 to 10.1.0.6): of 5 usable addresses 5 are leased"),
        "{error}"
    );
    assert_eq!(store.owners().unwrap().len(), 5, "the failed call left no owner");
}

#[test]
fn an_owner_gets_one_address_of_every_family_or_none() {
    let dir = tempdir();
    let store = open(dir.path());
    let sets = [set("fd00::/64"), set("10.1.0.0/30")];
    let got = store.allocate(&owner("a"), Some("default/a"), &sets, &[]).unwrap();
    assert_eq!(got, ["fd00::1".parse::<IpAddr>().unwrap(), "10.1.0.1".parse().unwrap()]);
    assert_eq!(store.addresses_of(&owner("a")).unwrap(), got);
    store.allocate(&owner("b"), None, &sets, &[]).unwrap();
    assert!(matches!(store.allocate(&owner("c"), None, &sets, &[]), Err(IpamError::Exhausted { .. })));
    assert_eq!(store.addresses_of(&owner("c")).unwrap(), [] as [IpAddr; 0]);
    assert_eq!([usage(&store, &sets[0]), usage(&store, &sets[1])], [(2, 0), (2, 0)]);
    let LeaseState::Leased { owner: first, pod, since } = store.list().unwrap().remove(0).state else { panic!() };
    assert_eq!((first, pod.as_deref(), since), (owner("a"), Some("default/a"), now()));
}

#[test]
fn the_same_container_with_another_interface_is_another_owner() {
    let dir = tempdir();
    let store = open(dir.path());
    let other = Owner::new("a", "net1").unwrap();
    one(&store, "a", "10.1.0.0/29");
    store.allocate(&other, None, &[set("10.1.0.0/29")], &[]).unwrap();
    store.release(&other).unwrap();
    assert_eq!(store.addresses_of(&owner("a")).unwrap().len(), 1);
}

#[test]
fn an_allocation_without_pools_or_out_of_overlapping_ones_is_refused() {
    let dir = tempdir();
    let store = open(dir.path());
    assert!(matches!(store.allocate(&owner("a"), None, &[], &[]), Err(IpamError::NoRanges)));
    let twice = [set("10.1.0.0/29"), set("10.1.0.0/30")];
    assert!(matches!(store.allocate(&owner("a"), None, &twice, &[]), Err(IpamError::Overlap { .. })));
}

#[test]
fn a_second_add_of_an_owner_is_refused_and_names_what_it_holds() {
    let dir = tempdir();
    let store = open(dir.path());
    one(&store, "a", "10.1.0.0/29");
    let error = store.allocate(&owner("a"), None, &[set("10.1.0.0/29")], &[]).unwrap_err();
    assert!(error.to_string().starts_with("a:eth0 already holds 10.1.0.1"), "{error}");
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn a_release_may_be_repeated_and_an_unknown_owner_is_no_error() {
    let dir = tempdir();
    let store = open(dir.path());
    assert_eq!(store.release(&owner("nobody")).unwrap(), [] as [IpAddr; 0]);
    let address = one(&store, "a", "10.1.0.0/29");
    assert_eq!(store.release(&owner("a")).unwrap()[0].to_string(), address);
    assert_eq!(store.release(&owner("a")).unwrap(), [] as [IpAddr; 0]);
    assert_eq!(store.owners().unwrap(), []);
}

#[test]
fn a_released_address_is_not_handed_out_again_within_the_cooldown_while_another_is_free() {
    let dir = tempdir();
    let store = open(dir.path());
    for name in ["a", "b", "c", "d"] {
        one(&store, name, "10.1.0.0/29");
    }
    store.release(&owner("a")).unwrap();
    advance(120);
    assert_eq!(one(&store, "e", "10.1.0.0/29"), "10.1.0.5");
    assert_eq!(one(&store, "f", "10.1.0.0/29"), "10.1.0.6");
    store.release(&owner("f")).unwrap();
    advance(1);
    assert_eq!(usage(&store, &set("10.1.0.0/29")), (4, 1));
    assert_eq!(one(&store, "g", "10.1.0.0/29"), "10.1.0.1", "121 s after its release");
}

#[test]
fn of_nothing_but_cooling_addresses_the_longest_cooled_is_taken() {
    let dir = tempdir();
    let store = open(dir.path());
    for name in ["a", "b", "c", "d", "e", "f"] {
        one(&store, name, "10.1.0.0/29");
    }
    for name in ["d", "b", "e"] {
        store.release(&owner(name)).unwrap();
        advance(1);
    }
    assert_eq!(one(&store, "x", "10.1.0.0/29"), "10.1.0.4");
    assert_eq!(one(&store, "y", "10.1.0.0/29"), "10.1.0.2");
    assert_eq!(one(&store, "z", "10.1.0.0/29"), "10.1.0.5");
    assert!(matches!(
        store.allocate(&owner("o"), None, &[set("10.1.0.0/29")], &[]),
        Err(IpamError::Exhausted { leased: 6, .. })
    ));
}

#[test]
fn addresses_are_handed_out_round_robin_and_without_the_cursor_from_the_beginning() {
    let dir = tempdir();
    let store = open(dir.path());
    assert_eq!(one(&store, "a", "fd00::/64"), "fd00::1");
    store.release(&owner("a")).unwrap();
    advance(500);
    assert_eq!(one(&store, "b", "fd00::/64"), "fd00::2");
    for damaged in ["", "not an address", "10.9.9.9"] {
        fs::remove_file(dir.path().join("last")).unwrap();
        if !damaged.is_empty() {
            fs::write(dir.path().join("last"), damaged).unwrap();
        }
        store.release(&owner("c")).unwrap();
        advance(500);
        assert_eq!(one(&store, "c", "fd00::/64"), "fd00::1", "{damaged}");
    }
}

#[test]
fn what_an_earlier_boot_left_is_dropped_and_the_same_boot_keeps_it() {
    let dir = tempdir();
    one(&open(dir.path()), "a", "10.1.0.0/29");
    assert_eq!(open(dir.path()).owners().unwrap(), [owner("a")]);
    let next = Store::open(dir.path(), "boot-2", COOLDOWN).unwrap();
    assert_eq!((next.owners().unwrap(), next.list().unwrap()), (vec![], vec![]));
    fs::remove_file(dir.path().join("boot_id")).unwrap();
    one(&next, "b", "10.1.0.0/29");
    assert_eq!(Store::open(dir.path(), "boot-2", COOLDOWN).unwrap().owners().unwrap(), [], "of an unknown boot");
}

#[test]
fn the_directory_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir();
    let store = open(&dir.path().join("ipam/net"));
    one(&store, "a", "10.1.0.0/29");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("ipam/net")), 0o700);
    assert_eq!(mode(&lease_file(&store, "10.1.0.1")), 0o600);
}

#[test]
fn fifty_at_once_never_get_the_same_address() {
    let dir = tempdir();
    let in_use = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for thread in 0..50 {
            let (in_use, dir) = (&in_use, dir.path());
            scope.spawn(move || {
                for round in 0..8 {
                    let store = Store::open(dir, "boot-1", Duration::ZERO).unwrap();
                    let owner = owner(&format!("c{thread}-{round}"));
                    let got = store.allocate(&owner, None, &[set("10.1.0.0/26"), set("fd00::/64")], &[]).unwrap();
                    for address in &got {
                        assert!(in_use.lock().unwrap().insert(*address), "{address} was handed out twice");
                    }
                    if round == 7 {
                        return;
                    }
                    for address in &got {
                        in_use.lock().unwrap().remove(address);
                    }
                    assert_eq!(store.release(&owner).unwrap(), got);
                }
            });
        }
    });
    let store = open(dir.path());
    assert_eq!(store.owners().unwrap().len(), 50);
    assert_eq!(usage(&store, &set("10.1.0.0/26")).0, 50);
}
