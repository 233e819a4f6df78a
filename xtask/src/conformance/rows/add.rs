//! A4: ADD that has to fail, and what is left of it.

use std::fs;

use serde_json::json;

use super::{
    super::{
        bench::{Bench, ip},
        outcome::{Check, Miss, case, ensure, same},
        packet::reach,
        view,
    },
    Row, result, row,
};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("R-ADD-1", "ADD", "an interface CNI_IFNAME that is there is an error, and is not touched", |bench| {
            taken(bench, "link add eth0 type bridge")
        }),
        row("R-ADD-1", "ADD", "a veth CNI_IFNAME that someone else made is an error, and is not touched", |bench| {
            taken(bench, "link add eth0 type veth peer name other0")
        }),
        row("R-ADD-1", "ADD", "nothing but the error is left of an ADD whose interface was there", |bench| {
            bench.pool(2);
            let before = bench.warm()?;
            taken(bench, "link add eth0 type bridge")?;
            bench.unchanged_since(&before)?;
            bench.free_addresses(2)
        }),
        row("R-ADD-2", "ADD", "a namespace that is missing is an error, and takes no address", |bench| {
            bench.pool(1);
            let before = bench.warm()?;
            for number in 0..3 {
                let pod = bench.pod(&format!("a{number}"))?;
                bench.call("ADD", &pod).env("CNI_NETNS", bench.file("missing")).run()?.error()?;
            }
            bench.unchanged_since(&before)?;
            bench.free_addresses(1)
        }),
        row("R-ADD-3", "ADD", "an ADD without an address to give leaves nothing", |bench| {
            bench.pool(1);
            let (_first, _) = bench.attached("first")?;
            let before = view::settled(&bench.host)?;
            let pod = bench.pod("a")?;
            bench.call("ADD", &pod).run()?.error()?;
            view::absent(&pod.netns, "eth0")?;
            bench.unchanged_since(&before)
        }),
        row("R-ADD-3", "ADD", "an ADD that cannot have its second family gives the first one back", |bench| {
            let one =
                |subnet: &str, address: &str| json!([{"subnet": subnet, "rangeStart": address, "rangeEnd": address}]);
            let (v4, v6) = (one("10.77.0.0/24", "10.77.0.20"), one("fd77::/64", "fd77::10"));
            bench.ranges = json!([one("10.77.0.0/24", "10.77.0.10"), v6]);
            bench.attached("first")?;
            // The one IPv6 address is taken now, the IPv4 pool is another one.
            bench.ranges = json!([v4, v6]);
            let pod = bench.pod("a")?;
            bench.call("ADD", &pod).run()?.error()?;
            bench.ranges = json!([v4]);
            bench.free_addresses(1)
        }),
        row(
            "R-ADD-4",
            "ADD",
            "a second ADD for what is attached is an error, and the container keeps its network",
            |bench| {
                let (pod, told) = bench.attached("a")?;
                let before = view::view(&pod.netns)?;
                bench.call("ADD", &pod).run()?.error()?;
                same("the container's devices and routes", &view::view(&pod.netns)?, &before)?;
                reach(&bench.host, &pod.netns, result::address(&told)?)
            },
        ),
        row("R-ADD-4", "ADD", "a second ADD takes no second address", |bench| {
            bench.pool(3);
            let (pod, _) = bench.attached("a")?;
            bench.call("ADD", &pod).run()?.error()?;
            bench.free_addresses(2)
        }),
        row("R-ADD-4", "ADD", "a second ADD into another namespace is an error too", |bench| {
            let (first, _) = bench.attached("a")?;
            let other = bench.pod("b")?;
            bench.call("ADD", &other).env("CNI_CONTAINERID", &first.id).run()?.error()?;
            view::absent(&other.netns, "eth0")
        }),
        row("R-ADD-7", "ADD", "the same container id in another network is another attachment", |bench| {
            let (pod, _) = bench.attached("a")?;
            let mut config = bench.config_with("name", &"other".into());
            config["ipam"]["ranges"] = json!([[{"subnet": "10.78.0.0/24"}]]);
            config["ranges"] = config["ipam"]["ranges"].clone();
            config["bridge"] = "cni-conf1".into();
            bench.call("ADD", &pod).env("CNI_IFNAME", "eth1").config(&config).run()?.result()?;
            bench.call("DEL", &pod).env("CNI_IFNAME", "eth1").config(&config).run()?.silence()?;
            ensure(view::device(&pod.netns, "eth0")?.is_some(), "eth0 of the first network still there", "it is gone")
        }),
        row("R-ADD-4", "ADD", "more containers come and go than there are addresses", |bench| {
            bench.pool(2);
            for number in 0..5 {
                let (pod, _) = case(format!("container {number}"), bench.attached(&format!("a{number}")))?;
                bench.del(&pod)?;
            }
            Ok(())
        }),
        row("R-ADD-3", "ADD", "state that is no directory is an error, and leaves nothing", |bench| {
            let before = bench.warm()?;
            for directory in [bench.state_dir(), bench.data_dir()] {
                let replaced = fs::remove_dir_all(&directory).and_then(|()| fs::write(&directory, "not a directory"));
                replaced.map_err(anyhow::Error::from)?;
            }
            let pod = bench.pod("a")?;
            bench.call("ADD", &pod).run()?.error()?;
            view::absent(&pod.netns, "eth0")?;
            bench.unchanged_since(&before)
        }),
    ]
}

/// ADD into a sandbox that has an `eth0` of someone else.
fn taken(bench: &mut Bench<'_>, make: &str) -> Check {
    let pod = bench.pod("a")?;
    for arguments in [make, "address add 192.0.2.7/24 dev eth0", "link set eth0 up"] {
        ip(&pod.netns, arguments)?;
    }
    let before = view::settled(&pod.netns)?;
    let identity = || -> Result<_, Miss> {
        let device = view::device(&pod.netns, "eth0")?.unwrap_or_default();
        Ok((device["ifindex"].clone(), device["address"].clone()))
    };
    let was = identity()?;
    bench.call("ADD", &pod).run()?.error()?;
    same("eth0's index and MAC", &identity()?, &was)?;
    same("the container's devices and routes", &view::view(&pod.netns)?, &before)
}
