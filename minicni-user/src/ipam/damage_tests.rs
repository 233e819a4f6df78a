use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;

use super::store_tests::{advance, lease_file, one, open, owner, set, tempdir};
use super::{IpamError, LeaseState, Swept};

#[test]
fn an_unreadable_lease_is_reported_and_never_handed_out() {
    let dir = tempdir();
    let store = open(dir.path());
    one(&store, "a", "10.1.0.0/29");
    for garbage in [&b""[..], b"\0\xff", br#"{"state":"leased","own"#] {
        fs::write(lease_file(&store, "10.1.0.1"), garbage).unwrap();
        assert!(matches!(store.list().unwrap()[0].state, LeaseState::Unreadable { .. }));
        assert!(matches!(
            store.allocate(&owner("a"), None, &[set("10.1.0.0/29")], &[]),
            Err(IpamError::AlreadyLeased { .. })
        ));
    }
    for n in 0..5 {
        assert_ne!(one(&store, &format!("c{n}"), "10.1.0.0/29"), "10.1.0.1");
    }
    assert!(matches!(
        store.allocate(&owner("o"), None, &[set("10.1.0.0/29")], &[]),
        Err(IpamError::Exhausted { leased: 5, unreadable: 1, .. })
    ));
    assert_eq!(store.sweep().unwrap(), Swept::default(), "its owner still claims it");
    assert_eq!(store.release(&owner("a")).unwrap().len(), 1);
    assert_eq!(one(&store, "o", "10.1.0.0/29"), "10.1.0.1");
}

#[test]
fn an_unreadable_lease_is_not_taken_from_the_other_owner_who_claims_it() {
    let dir = tempdir();
    let store = open(dir.path());
    symlink("10.1.0.1", store.owner_path(&owner("killed"))).unwrap();
    one(&store, "a", "10.1.0.0/29");
    fs::write(lease_file(&store, "10.1.0.1"), "").unwrap();
    assert_eq!(store.release(&owner("killed")).unwrap(), [] as [IpAddr; 0]);
    assert_eq!(store.addresses_of(&owner("a")).unwrap().len(), 1);
    assert_eq!(store.release(&owner("a")).unwrap().len(), 1);
}

#[test]
fn a_release_never_touches_a_lease_of_somebody_else() {
    let dir = tempdir();
    let store = open(dir.path());
    one(&store, "a", "10.1.0.0/29");
    symlink("10.1.0.1", store.owner_path(&owner("stale"))).unwrap();
    assert_eq!(store.addresses_of(&owner("stale")).unwrap(), [] as [IpAddr; 0]);
    assert_eq!(store.release(&owner("stale")).unwrap(), [] as [IpAddr; 0]);
    assert_eq!(store.addresses_of(&owner("a")).unwrap().len(), 1);
    assert_eq!(store.owners().unwrap(), [owner("a")]);
}

#[test]
fn a_damaged_index_is_answered_from_the_leases() {
    let dir = tempdir();
    let store = open(dir.path());
    let address = one(&store, "a", "10.1.0.0/29");
    let index = store.owner_path(&owner("a"));
    fs::remove_file(&index).unwrap();
    fs::write(&index, "not a symlink").unwrap();
    assert_eq!(store.addresses_of(&owner("a")).unwrap()[0].to_string(), address);
    assert_eq!(store.release(&owner("a")).unwrap()[0].to_string(), address);
    assert_eq!(store.owners().unwrap(), []);
}

#[test]
fn a_sweep_repairs_what_was_damaged_and_ends_no_lease() {
    let dir = tempdir();
    let store = open(dir.path());
    for name in ["a", "b", "c", "d"] {
        one(&store, name, "10.1.0.0/28");
    }
    store.release(&owner("a")).unwrap();
    advance(121);
    store.release(&owner("b")).unwrap();
    fs::remove_dir_all(store.owners_dir()).unwrap();
    fs::write(lease_file(&store, "10.1.0.9"), "garbage").unwrap();
    assert_eq!(
        store.sweep().unwrap(),
        Swept {
            cooled: vec!["10.1.0.1".parse().unwrap()],
            reclaimed: vec!["10.1.0.9".parse().unwrap()],
            dangling: vec![],
            reindexed: vec![owner("c"), owner("d")],
        }
    );
    symlink("10.1.0.12", store.owner_path(&owner("killed"))).unwrap();
    assert_eq!(store.sweep().unwrap(), Swept { dangling: vec![owner("killed")], ..Swept::default() });
    assert_eq!(store.addresses_of(&owner("c")).unwrap().len(), 1);
    assert_eq!(store.addresses_of(&owner("d")).unwrap().len(), 1);
}

#[test]
fn foreign_files_in_the_directories_are_neither_leases_nor_owners() {
    let dir = tempdir();
    let store = open(dir.path());
    for name in ["leases/README", "leases/FD00::1", "leases/.new", "owners/README", "owners/.new-link"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    assert_eq!((store.list().unwrap(), store.owners().unwrap()), (vec![], vec![]));
    one(&store, "a", "fd00::/64");
}
