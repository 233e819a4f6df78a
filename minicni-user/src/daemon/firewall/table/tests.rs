//! Against the real nftables: every test runs in a network namespace of its own and needs root.

use std::{fmt::Write as _, time::Instant};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::daemon::rules::sources::Source;

/// Runs `test` on a thread of its own, in a new network namespace that ends with it.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn contents(cluster: Vec<IpNet>) -> Contents {
    let pods = vec!["10.244.0.0/24".parse().unwrap(), "fd44::/64".parse().unwrap()];
    Contents { masquerade: true, pods, former: Vec::new(), cluster, tunnel: None }
}

fn ruleset() -> String {
    NFT.run(&["list", "ruleset"], "").unwrap()
}

#[test]
fn the_table_is_written_once_and_then_as_it_was() {
    in_namespace(|| {
        let (mut table, wanted) = (Table::default(), contents(vec!["10.0.0.0/8".parse().unwrap()]));
        assert!(!stands(&wanted).unwrap());
        table.write(&wanted).unwrap();
        assert!(stands(&wanted).unwrap());
        let before = ruleset();
        table.look(&wanted).unwrap();
        assert_eq!(ruleset(), before);
        // As another process: whatever it finds, it writes the same.
        nft("add rule inet minicni postrouting drop").unwrap();
        Table::default().write(&wanted).unwrap();
        assert_eq!(ruleset(), before);
        remove().unwrap();
        remove().unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn whatever_somebody_changes_in_the_table_is_noticed_and_repaired_and_other_tables_stay() {
    in_namespace(|| {
        nft("table inet other { chain c { type filter hook forward priority 0; policy accept; accept; }\n }").unwrap();
        let (mut table, wanted) = (Table::default(), contents(vec!["10.0.0.0/8".parse().unwrap()]));
        table.write(&wanted).unwrap();
        let before = ruleset();
        for change in [
            "delete table inet minicni",
            "flush table inet minicni",
            "delete table ip6 minicni",
            "flush chain ip6 minicni prerouting",
            "add chain ip6 minicni more",
            "flush set inet minicni pods4",
            "delete element inet minicni cluster4 { 10.0.0.0/8 }",
            "add element inet minicni cluster4 { 11.0.0.0-11.0.0.9 }",
            "add element inet minicni cluster6 { ::/0 }",
            "insert rule inet minicni postrouting accept",
            "add chain inet minicni postrouting { policy drop; }",
            "add chain inet minicni more",
            "add set inet minicni more { type ipv4_addr; }",
        ] {
            nft(change).unwrap();
            assert!(!stands(&wanted).unwrap(), "{change}");
            table.look(&wanted).unwrap();
            // The order of tables is that of their making.
            let (mut now, mut then) =
                (ruleset().lines().map(str::to_owned).collect::<Vec<_>>(), before.lines().collect::<Vec<_>>());
            now.sort();
            then.sort_unstable();
            assert_eq!(now, then, "{change}");
        }
    });
}

/// Every element of the sets that change, as the kernel has it: with those that end an interval, and `nft`'s notes. Without
/// the end at address 0 that `nft` gives a set when it is empty: it ends nothing.
fn kernels_elements() -> String {
    let of = |set| NFT.run(&["--debug=netlink", "list", "set", "inet", "minicni", set], "").unwrap();
    let listed = of("cluster4") + &of("cluster6");
    let is_nothing = |line: &str| {
        let (key, rest) = line.split_once(':').unwrap_or_default();
        rest.trim() == "1 [end]" && key.trim().trim_start_matches("element").trim_matches([' ', '0']).is_empty()
    };
    let elements = listed.lines().filter(|line| !is_nothing(line)).collect::<Vec<_>>().join("\n");
    assert!(elements.contains("[end]") || !elements.contains("elements ="), "this nft shows no elements: {listed}");
    elements
}

#[test]
fn every_change_of_elements_leads_where_the_whole_script_does_and_netlink_to_the_elements_that_nft_makes() {
    in_namespace(|| {
        // Neighbours at the first address of all, in the middle, and at the last one.
        let prefix = (0..3_usize, 0..64_u8, 26..=32_u8, any::<bool>()).prop_map(|(place, number, length, ipv6)| {
            let v4 = [0, 0x0a00_0000, u32::MAX - 63][place] + u32::from(number);
            let v6 = [0, 0xfd44_u128 << 112, u128::MAX - 63][place] + u128::from(number);
            let prefix = if ipv6 {
                IpNet::new(std::net::Ipv6Addr::from_bits(v6).into(), length + 96)
            } else {
                IpNet::new(std::net::Ipv4Addr::from_bits(v4).into(), length)
            };
            prefix.unwrap().trunc()
        });
        let steps = proptest::collection::vec(proptest::collection::vec(prefix, 1..32), 2..5);
        let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&steps, |steps| {
                let mut old = contents(vec!["10.0.0.0/8".parse().unwrap()]);
                for step in steps {
                    let new = contents(step);
                    let changes = new.changes(&old).unwrap();
                    let script = elements::script(&changes);
                    let mut made = Vec::new();
                    for by_netlink in [false, true] {
                        nft(&old.script()).unwrap();
                        let done = if by_netlink { elements::write(&changes) } else { nft(&script) };
                        prop_assert!(done.is_ok(), "{done:?}, by netlink {by_netlink}: {script}");
                        prop_assert!(stands(&new).unwrap(), "by netlink {by_netlink}: {script}");
                        made.push((ruleset(), kernels_elements()));
                    }
                    prop_assert_eq!(&made[0], &made[1], "{}", script);
                    old = new;
                }
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn changes_by_netlink_one_after_the_other_end_where_the_last_one_leads() {
    in_namespace(|| {
        let mut table = Table::default();
        let all =
            ["0.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "255.255.255.0/24", "::/64", "fd44:0:0:1::/64", "ffff::/16"];
        let all: Vec<IpNet> = all.iter().map(|prefix| prefix.parse().unwrap()).collect();
        table.write(&contents(all.clone())).unwrap();
        for round in 1..128_u32 {
            let some = all.iter().enumerate().filter(|(bit, _)| round >> bit & 1 == 1).map(|(_, prefix)| *prefix);
            let (new, old) = (contents(some.collect()), table.written.take().unwrap());
            elements::write(&new.changes(&old).unwrap()).unwrap();
            assert!(stands(&new).unwrap(), "{:?}", new.cluster);
            table.written = Some(new);
        }
    });
}

#[test]
fn what_the_kernel_refuses_changes_nothing_and_is_a_typed_error_and_the_table_is_written_all_the_same() {
    in_namespace(|| {
        let all: Vec<IpNet> =
            ["10.0.1.0/24", "10.0.3.0/24", "fd44:0:0:1::/64"].map(|text| text.parse().unwrap()).into();
        let (old, new) = (contents(all[..1].to_vec()), contents(all[1..].to_vec()));
        for (somebody, refusal) in [
            ("delete table inet minicni", Some(Errno::ENOENT)),
            ("flush chain inet minicni postrouting; delete set inet minicni cluster6", Some(Errno::ENOENT)),
            ("delete element inet minicni cluster4 { 10.0.1.0/24 }", Some(Errno::ENOENT)),
            ("add element inet minicni cluster4 { 10.0.2.0-10.0.3.9 }", None),
            // What is there already need not be added.
            ("add element inet minicni cluster4 { 10.0.3.0/24 }", None),
        ] {
            let mut table = Table::default();
            table.write(&old).unwrap();
            nft(somebody).unwrap();
            let before = ruleset();
            let outcome = elements::write(&new.changes(&old).unwrap());
            match &outcome {
                Err(FirewallError::Elements(errno)) => {
                    assert!(refusal.is_none_or(|expected| expected == *errno), "{somebody}: {errno}");
                    assert_eq!(ruleset(), before, "{somebody}");
                }
                other => assert!(other.is_ok() && refusal.is_none(), "{somebody}: {other:?}"),
            }
            // From there on as the daemon does it.
            table.write(&new).unwrap();
            if refusal.is_none() {
                table.look(&new).unwrap();
            }
            assert!(stands(&new).unwrap(), "{somebody}");
        }
    });
}

#[test]
fn flows_hear_of_elements_written_by_netlink_as_of_those_that_nft_writes() {
    in_namespace(|| {
        let [nftables, ..] = Source::open_each();
        let nftables = nftables.unwrap();
        let (mut table, one) = (Table::default(), contents(vec!["10.0.0.0/8".parse().unwrap()]));
        table.write(&one).unwrap();
        assert!(nftables.drain().unwrap());
        assert!(!nftables.drain().unwrap());
        table.write(&one).unwrap();
        assert!(!nftables.drain().unwrap(), "there was nothing to write");
        elements::write(&contents(Vec::new()).changes(&one).unwrap()).unwrap();
        assert!(nftables.drain().unwrap());
    });
}

#[test]
fn a_table_that_is_not_wanted_is_removed_and_not_missed() {
    in_namespace(|| {
        let (mut table, wanted) = (Table::default(), contents(Vec::new()));
        table.write(&wanted).unwrap();
        let off = Contents { masquerade: false, pods: vec!["10.244.0.0/24".parse().unwrap()], ..wanted };
        table.write(&off).unwrap();
        assert_eq!(ruleset(), "");
        assert!(stands(&off).unwrap());
        table.look(&off).unwrap();
    });
}

#[test]
fn a_script_that_nft_refuses_is_an_error_with_its_own_words() {
    in_namespace(|| {
        let error = nft("add rule inet minicni nowhere accept\n").unwrap_err().to_string();
        assert!(error.starts_with("nft -f -: ") && error.contains("No such file or directory"), "{error}");
        let missing = crate::daemon::firewall::tool::Tool { program: "no-such-program", ..NFT };
        let error = missing.run(&[], "").unwrap_err().to_string();
        assert!(error.contains("no-such-program is not installed") && error.contains("package nftables"), "{error}");
    });
}

/// So many disjoint prefixes that none can be put together with another.
fn apart(count: u32) -> Vec<IpNet> {
    let of = |number: u32| {
        let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number * 512);
        let v6 = std::net::Ipv6Addr::from_bits(0xfd44_u128 << 112 | u128::from(number) << 65);
        [IpNet::new(v4.into(), 24).unwrap(), IpNet::new(v6.into(), 64).unwrap()]
    };
    (0..count).flat_map(of).collect()
}

#[test]
fn five_thousand_nodes_are_written_within_three_seconds_also_on_a_busy_host() {
    in_namespace(|| {
        let mut table = Table::default();
        let mut figures = String::new();
        let mut step = |what: &str, wanted: &Contents, table: &mut Table| {
            let start = Instant::now();
            table.write(wanted).unwrap();
            let took = start.elapsed();
            let start = Instant::now();
            assert!(stands(wanted).unwrap());
            writeln!(figures, "{what}: written in {took:?}, looked at in {:?}", start.elapsed()).unwrap();
            took
        };
        // As a controller hands them out, one behind the other.
        let dense: Vec<IpNet> = (0..5_000u32)
            .flat_map(|number| {
                let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number * 256);
                let ip = std::net::Ipv4Addr::from_bits(0xac10_0000 + number);
                [IpNet::new(v4.into(), 24).unwrap(), IpNet::from(std::net::IpAddr::from(ip))]
            })
            .collect();
        step("5,000 nodes, dense", &contents(dense), &mut table);
        let whole = step("5,000 nodes, nothing together", &contents(apart(5_000)), &mut table);
        let one = step("one more", &contents(apart(5_001)), &mut table);
        step("one less", &contents(apart(5_000)), &mut table);
        let changes = contents(apart(5_001)).changes(&contents(apart(5_000))).unwrap();
        let by = |what, change: &dyn Fn() -> Result<(), FirewallError>| {
            let start = Instant::now();
            change().unwrap();
            let took = start.elapsed();
            nft("delete element inet minicni cluster4 { 10.39.16.0/24 }\ndelete element inet minicni cluster6 { fd44:0:0:2710::/64 }")
                .unwrap();
            format!("the elements of one more, by {what}: {took:?}\n")
        };
        let alone = by("netlink", &|| elements::write(&changes)) + &by("nft", &|| nft(&elements::script(&changes)));
        let mut other = Table::default();
        let anew = step("the same anew", &contents(apart(5_000)), &mut other);
        eprint!("{figures}{alone}");
        assert!([whole, one, anew].iter().all(|took| took.as_secs() < 3), "{figures}");
    });
}
