use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use super::fault;
use super::store_tests::{COOLDOWN, advance, lease_file, one, open, owner, set, tempdir};
use super::{IpamError, LeaseState, Range, RangeSet, Store};

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What a request out of `10.1.0.0/29` (gateway `.1`, without `.6`) and `fd00::/64` is answered with.
fn request(store: &Store, name: &str, requested: &[&str]) -> Result<Vec<IpAddr>, IpamError> {
    let v4 = Range::new("10.1.0.0/29".parse().unwrap(), None, None, "10.1.0.1".parse().ok()).unwrap();
    let v4 = v4.excluding(vec!["10.1.0.6/32".parse().unwrap()]).unwrap();
    let sets = [RangeSet::new(vec![v4]).unwrap(), set("fd00::/64")];
    store.allocate(&owner(name), Some(&format!("default/{name}")), &sets, &addresses(requested))
}

#[test]
fn a_requested_address_is_given_and_the_other_sets_pick_as_ever() {
    let dir = tempdir();
    let store = open(dir.path());
    assert_eq!(request(&store, "a", &["10.1.0.4"]).unwrap(), addresses(&["10.1.0.4", "fd00::1"]));
    assert_eq!(request(&store, "b", &["fd00::77", "10.1.0.3"]).unwrap(), addresses(&["10.1.0.3", "fd00::77"]));
    assert_eq!(request(&store, "c", &[]).unwrap(), addresses(&["10.1.0.2", "fd00::2"]), "requests move no cursor");
    assert_eq!(request(&store, "d", &[]).unwrap(), addresses(&["10.1.0.5", "fd00::3"]));
}

#[test]
fn a_request_that_cannot_be_met_says_why_and_leaves_nothing() {
    let dir = tempdir();
    let store = open(dir.path());
    request(&store, "a", &["10.1.0.4"]).unwrap();
    request(&store, "damaged", &["10.1.0.5"]).unwrap();
    fs::write(lease_file(&store, "10.1.0.5"), "").unwrap();
    let before = store.list().unwrap();
    for (requested, words) in [
        (&["10.1.0.4"][..], "address 10.1.0.4 is taken: a:eth0 (default/a) holds it"),
        (&["fd00::99", "10.1.0.4"], "address 10.1.0.4 is taken"),
        (&["10.1.0.5"], "address 10.1.0.5 is taken: its lease cannot be read"),
        (&["10.2.0.4"], "address 10.2.0.4 is not handed out: the ranges are 10.1.0.0/29 (10.1.0.1 to 10.1.0.6 without"),
        (&["10.1.0.1"], "address 10.1.0.1 is not handed out"),
        (&["10.1.0.6"], "address 10.1.0.6 is not handed out"),
        (&["fd00::"], "; fd00::/64 (fd00::1 to fd00::ffff:ffff:ffff:ffff)"),
        (&["10.1.0.2", "10.1.0.3"], "addresses 10.1.0.2 and 10.1.0.3 are both of 10.1.0.0/29"),
        (&["10.1.0.2", "10.1.0.2"], "addresses 10.1.0.2 and 10.1.0.2 are both of"),
    ] {
        let error = request(&store, "b", requested).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(store.list().unwrap(), before);
    }
    assert_eq!(store.owners().unwrap(), [owner("a"), owner("damaged")]);
}

#[test]
fn a_cooling_address_may_be_requested_and_one_that_a_killed_add_left_by_its_own_owner() {
    let dir = tempdir();
    let store = open(dir.path());
    request(&store, "a", &["10.1.0.4"]).unwrap();
    store.release(&owner("a")).unwrap();
    assert_eq!(request(&store, "b", &["10.1.0.4"]).unwrap()[0].to_string(), "10.1.0.4");
    // Killed between its two leases.
    fs::remove_file(lease_file(&store, "fd00::2")).unwrap();
    assert_eq!(request(&store, "b", &["10.1.0.4"]).unwrap()[0].to_string(), "10.1.0.4");
}

#[test]
fn a_second_add_is_refused_as_such_even_if_it_requests_what_it_holds() {
    let dir = tempdir();
    let store = open(dir.path());
    request(&store, "a", &["10.1.0.4"]).unwrap();
    assert!(matches!(request(&store, "a", &["10.1.0.4"]), Err(IpamError::AlreadyLeased { .. })));
}

#[test]
fn a_cooldown_goes_on_whoever_opens_the_store_and_is_known_without_the_configuration() {
    let dir = tempdir();
    one(&open(dir.path()), "a", "10.1.0.0/30");
    open(dir.path()).release(&owner("a")).unwrap();
    advance(COOLDOWN.as_secs());
    assert_eq!(one(&open(dir.path()), "b", "10.1.0.0/30"), "10.1.0.2");
    assert_eq!(Store::recorded(dir.path(), "boot-1").unwrap().cooldown, COOLDOWN);
    let longer = COOLDOWN * 2;
    Store::open(dir.path(), "boot-1", longer).unwrap();
    assert_eq!(Store::recorded(dir.path(), "boot-1").unwrap().cooldown, longer);
    assert!(Store::recorded(dir.path(), "boot-2").is_none());
    fs::remove_file(dir.path().join("cooldown")).unwrap();
    let unknown = Store::recorded(dir.path(), "boot-1").unwrap();
    assert_eq!(unknown.sweep().unwrap().cooled, [] as [IpAddr; 0], "who does not know the cooldown ends none");
    assert!(matches!(unknown.list().unwrap()[0].state, LeaseState::Cooling { .. }));
}

#[test]
fn pods_that_live_long_are_passed_over_and_what_has_cooled_is_found_behind_them() {
    let dir = tempdir();
    let store = open(dir.path());
    for n in 0..29 {
        one(&store, &format!("c{n}"), "10.1.0.0/27");
    }
    store.release(&owner("c28")).unwrap();
    one(&store, "last", "10.1.0.0/27");
    assert_eq!(store.exhausted(&[set("10.1.0.0/27")]).unwrap(), None, "one cools");
    // Before the cursor all are leased, and behind it as well.
    store.release(&owner("c20")).unwrap();
    advance(121);
    assert_eq!(one(&store, "a", "10.1.0.0/27"), "10.1.0.21");
    assert_eq!(one(&store, "b", "10.1.0.0/27"), "10.1.0.29");
    fs::remove_file(lease_file(&store, "10.1.0.17")).unwrap();
    assert_eq!(one(&store, "c", "10.1.0.0/27"), "10.1.0.17");
    let sets = [set("10.2.0.0/24"), set("10.1.0.0/27")];
    assert_eq!(store.exhausted(&sets).unwrap(), Some(&sets[1]));
}

#[test]
fn whoever_holds_an_attachment_is_not_waited_for() {
    let dir = tempdir();
    let store = open(dir.path());
    let held = store.hold(&owner("a")).unwrap();
    assert!(store.try_hold(&owner("a")).unwrap().is_none());
    assert!(store.try_hold(&owner("b")).unwrap().is_some());
    drop(held);
    assert!(store.try_hold(&owner("a")).unwrap().is_some());
}

#[test]
fn an_add_and_a_status_open_a_few_files_however_many_pods_there_are() {
    let dir = tempdir();
    let store = open(dir.path());
    let sets = [set("10.1.0.0/16")];
    one(&store, "first", "10.1.0.0/16");
    for n in 2..500 {
        let lease = format!(r#"{{"state":"leased","owner":"c{n}:eth0","since":1}}"#);
        fs::write(store.leases().join(Ipv4Addr::from_bits(0x0a01_0000 + n).to_string()), lease).unwrap();
    }
    let (free, reads) = fault::reads(|| store.allocate(&owner("a"), None, &sets, &[]).unwrap());
    assert_eq!((free, reads), (addresses(&["10.1.1.244"]), 8));
    let (free, reads) = fault::reads(|| store.allocate(&owner("b"), None, &sets, &[]).unwrap());
    assert_eq!((free, reads), (addresses(&["10.1.1.245"]), 1));
    assert_eq!(fault::reads(|| store.exhausted(&sets).unwrap()), (None, 1));
}
