//! What is heard of changes, by kind.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::Stdio;

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::{Command, in_namespace, ip};
use crate::daemon::rules::sources::{Source, watch};

/// Runs `nft` in the thread's namespace with a script of its language.
#[track_caller]
fn nft(script: &str) {
    let mut nft = Command::new("nft");
    let nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut nft = nft.spawn().expect("nftables is needed");
    nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

fn nftables() -> Source {
    let [source, ..] = Source::open_each();
    source.unwrap()
}

#[test]
fn every_transaction_of_nftables_is_heard_and_looking_at_the_rules_is_not() {
    in_namespace(|| async {
        let source = nftables();
        assert!(!source.drain().unwrap());
        for script in [
            "add table inet t",
            "add chain inet t c { type filter hook forward priority 0; policy accept; }",
            "add set inet t s { type ipv4_addr; }",
            "add rule inet t c ip saddr @s drop",
            "add element inet t s { 10.0.0.7 }",
            "delete element inet t s { 10.0.0.7 }",
            "flush ruleset",
        ] {
            nft(script);
            assert!(source.drain().unwrap(), "{script}");
            nft("list ruleset");
            assert!(!source.drain().unwrap());
        }
        let rule = ["-A", "FORWARD", "-s", "10.0.0.7", "-j", "DROP"];
        assert!(Command::new("iptables-nft").args(rule).status().unwrap().success());
        assert!(source.drain().unwrap());
    });
}

#[test]
fn an_overrun_counts_as_a_change_and_listening_goes_on() {
    in_namespace(|| async {
        let source = nftables();
        setsockopt(&source.fd(), RcvBuf, &1).unwrap();
        let mut script = "table ip t { chain c { }\n }\n".to_owned();
        for port in 0..5_000 {
            writeln!(script, "add rule ip t c udp dport {port} drop").unwrap();
        }
        nft(&script);
        assert!(source.drain().unwrap());
        assert!(!source.drain().unwrap());
        nft("flush ruleset");
        assert!(source.drain().unwrap());
    });
}

#[test]
fn routes_and_policy_rules_of_others_are_heard_and_ours_are_not() {
    in_namespace(|| async {
        // Link-local addresses would have more to say, in their own time.
        for device in ["up0", "peer0"] {
            ip(&format!("link set {device} addrgenmode none"));
            ip(&format!("-6 address flush dev {device}"));
        }
        let [_, source, _] = Source::open_each();
        let source = source.unwrap();
        for (command, heard) in [
            ("route add 10.9.0.0/16 via 10.0.0.9", true),
            ("route del 10.9.0.0/16", true),
            ("route add 10.9.0.0/16 via 10.0.0.9 proto 109", false),
            ("route add 10.0.0.7 dev up0 proto 110", false),
            ("rule add to 10.0.0.7 prohibit", true),
            ("-6 rule add to fd00::7 prohibit", true),
            ("link add mni0123456789ab type veth peer name mni0123456789ac", false),
            ("link del mni0123456789ab", false),
            ("link set up0 mtu 1400", true),
        ] {
            ip(command);
            assert_eq!(source.drain().unwrap(), heard, "{command}");
        }
    });
}

#[test]
fn who_lets_go_of_the_lock_of_iptables_is_heard_and_its_removal_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join("xtables.lock");
    let source = Source::Xtables(watch(&lock).unwrap());
    assert!(!source.drain().unwrap());
    let held = File::open(&lock).unwrap();
    assert!(!source.drain().unwrap(), "nothing is done yet");
    drop(held);
    assert!(source.drain().unwrap());
    fs::remove_file(&lock).unwrap();
    let error = source.drain().unwrap_err().to_string();
    assert!(error.contains("iptables-legacy") && error.contains("removed"), "{error}");
}
