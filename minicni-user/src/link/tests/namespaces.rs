use std::{fs, os::unix::fs::symlink, path::Path};

use super::{fresh_netns, in_fresh_netns, link_in};
use crate::link::{LinkError, Netns, Socket, sysctl};

#[test]
fn opening_what_is_no_network_namespace_says_which_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert!(matches!(Netns::open(&missing), Err(LinkError::NetnsMissing { path }) if path == missing));

    let regular = directory.path().join("regular");
    fs::write(&regular, "").unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for path in [regular.as_path(), directory.path(), fifo.as_path(), Path::new("/proc/cpuinfo")] {
        assert!(matches!(Netns::open(path), Err(LinkError::NotANamespace { .. })), "{}", path.display());
    }
}

#[test]
fn entering_a_namespace_of_another_kind_is_refused() {
    let mounts = Netns::open("/proc/thread-self/ns/mnt").unwrap();
    assert!(matches!(mounts.run(|| ()), Err(LinkError::NotANamespace { .. })));
}

#[test]
fn a_namespace_is_own_for_a_thread_inside_it_and_for_no_other() {
    in_fresh_netns(|| {
        let other = fresh_netns();
        assert!(!other.is_own().unwrap());
        assert!(other.run(|| other.is_own().unwrap()).unwrap());
        assert!(Netns::open("/proc/thread-self/ns/net").unwrap().is_own().unwrap());
        assert!(!other.is_own().unwrap(), "the calling thread stays where it is");
    });
}

#[test]
fn a_panic_inside_a_namespace_becomes_an_error_with_its_message() {
    let netns = fresh_netns();
    for (error, message) in [
        (netns.run(|| panic!("static")).unwrap_err(), "static"),
        (netns.run(|| panic!("made of {}", 2)).unwrap_err(), "made of 2"),
    ] {
        assert!(matches!(&error, LinkError::Panicked { message: found, .. } if found == message), "{error}");
    }
}

#[test]
fn a_named_namespace_has_its_loopback_up_and_lasts_until_it_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node1");
    drop(Netns::create_named(&path).unwrap());

    let netns = Netns::open(&path).unwrap();
    assert!(!netns.is_own().unwrap());
    assert!(link_in(&netns, "lo").unwrap().up);
    let error = Netns::create_named(&path).unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::EEXIST as i32), "{error}");

    Netns::delete_named(&path).unwrap();
    assert!(!path.exists());
    Netns::delete_named(&path).unwrap();
    assert!(matches!(Netns::open(&path), Err(LinkError::NetnsMissing { .. })));
}

#[test]
fn the_file_of_an_interrupted_creation_is_used_again_or_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node1");
    fs::write(&path, "").unwrap();
    Netns::delete_named(&path).unwrap();
    assert!(!path.exists());

    fs::write(&path, "").unwrap();
    Netns::create_named(&path).unwrap();
    Netns::delete_named(&path).unwrap();
}

#[test]
fn a_file_that_is_no_namespace_is_neither_mounted_over_nor_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("diary");
    fs::write(&file, "dear").unwrap();
    let link = directory.path().join("link");
    symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        assert!(matches!(Netns::create_named(path), Err(LinkError::NotANamespace { .. })));
        assert!(matches!(Netns::delete_named(path), Err(LinkError::NotANamespace { .. })));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "dear");
}

#[test]
fn a_sysctl_is_written_only_where_it_differs_and_only_in_the_own_namespace() {
    const KEY: &str = "net/ipv4/ip_forward";
    in_fresh_netns(|| {
        let other = fresh_netns();
        sysctl::write(KEY, "0").unwrap();
        let before = other.run(|| sysctl::read(KEY).unwrap()).unwrap();
        assert!(sysctl::ensure(KEY, "1").unwrap());
        assert_eq!(sysctl::read(KEY).unwrap(), "1");
        assert!(!sysctl::ensure(KEY, "1").unwrap());
        assert_eq!(other.run(|| sysctl::read(KEY).unwrap()).unwrap(), before);
    });
}

#[test]
fn a_device_name_with_dots_names_its_own_setting() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        Socket::open().unwrap().batch(vec![super::pair("eth0.10", &pod)]).unwrap();
        let key = sysctl::device_key("ipv4", "eth0.10", "rp_filter").unwrap();
        assert_eq!(key, "net/ipv4/conf/eth0.10/rp_filter");
        sysctl::write(&key, "2").unwrap();
        assert_eq!(sysctl::read(&key).unwrap(), "2");
    });
}

#[test]
fn a_sysctl_outside_proc_sys_is_refused_and_an_absent_one_is_named() {
    for key in ["", "/etc/passwd", "../../etc/passwd", "net/../../../etc/passwd", "."] {
        assert!(matches!(sysctl::read(key), Err(LinkError::Invalid { .. })), "{key}");
    }
    for device in ["", ".", "..", "../all", "a/b"] {
        assert!(matches!(sysctl::device_key("ipv4", device, "rp_filter"), Err(LinkError::Invalid { .. })), "{device}");
    }
    let error = sysctl::write("net/ipv4/no_such_setting", "1").unwrap_err();
    assert!(error.to_string().starts_with("set to \"1\" sysctl net/ipv4/no_such_setting: E"), "{error}");
}
