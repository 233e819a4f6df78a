//! R-ADD-8, R-ADD-9: the network works when ADD returns. Each row sends one packet and waits for one answer.

use std::{fs, net::IpAddr};

use anyhow::{Context as _, Result};
use minicni::link::Netns;
use serde_json::Value;

use super::{
    super::{
        bench::{Bench, HOST_ADDRESSES, ip},
        outcome::{Miss, ensure, same, wrong},
        packet::reach,
        view,
    },
    Row, result, row,
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for v4 in [true, false] {
        let family = if v4 { "IPv4" } else { "IPv6" };
        rows.extend([
            row(
                "R-ADD-8",
                "ADD",
                format!("the host reaches the container over {family} as ADD returns"),
                move |bench| {
                    families(bench, v4);
                    let (pod, told) = bench.attached("a")?;
                    reach(&bench.host, &pod.netns, of_family(&told, v4)?)
                },
            ),
            row(
                "R-ADD-8",
                "ADD",
                format!("the container reaches the host over {family} as ADD returns"),
                move |bench| {
                    families(bench, v4);
                    let (pod, _) = bench.attached("a")?;
                    reach(&pod.netns, &bench.host, HOST_ADDRESSES[usize::from(!v4)])
                },
            ),
            row(
                "R-ADD-8",
                "ADD",
                format!("one container reaches the next over {family} as ADD returns"),
                move |bench| {
                    families(bench, v4);
                    let (one, _) = bench.attached("a")?;
                    let (other, told) = bench.attached("b")?;
                    reach(&one.netns, &other.netns, of_family(&told, v4)?)
                },
            ),
        ]);
    }
    rows.extend([
        row("R-ADD-9", "ADD", "an IPv6 address can be used as ADD returns: it is not tentative", |bench| {
            bench.dual_stack();
            let (pod, _) = bench.attached("a")?;
            let addresses = view::addresses(&pod.netns, "eth0")?;
            let v6 = addresses.iter().find(|(address, _)| address.is_ipv6());
            ensure(v6.is_some_and(|(_, settled)| *settled), "an IPv6 address that is settled", format!("{addresses:?}"))
        }),
        row("R-ADD-9", "ADD", "IPv6 works in a sandbox where a runtime has switched it off", |bench| {
            bench.dual_stack();
            let pod = bench.pod("a")?;
            set(&pod.netns, "default/disable_ipv6", "1")?;
            set(&pod.netns, "all/disable_ipv6", "1")?;
            let told = bench.add(&pod)?;
            let address = of_family(&told, false)?;
            let addresses = view::addresses(&pod.netns, "eth0")?;
            ensure(addresses.contains(&(address, true)), format!("{address}, settled"), format!("{addresses:?}"))
        }),
        row("R-ADD-9", "ADD", "the host's end takes no router advertisement from the container", |bench| {
            bench.dual_stack();
            let (pod, _) = bench.attached("a")?;
            let end = view::host_end(&bench.host, &pod.netns, "eth0")?;
            let file = format!("/proc/sys/net/ipv6/conf/{end}/accept_ra");
            let read = bench.host.run(|| fs::read_to_string(&file)).map_err(anyhow::Error::from)?;
            same("accept_ra", &read.with_context(|| format!("read {file}"))?.trim(), &"0")
        }),
        row("R-ADD-9", "ADD", "an IPv6 address survives that the interface goes down and up", |bench| {
            bench.dual_stack();
            let (pod, told) = bench.attached("a")?;
            ip(&pod.netns, "link set eth0 down")?;
            ip(&pod.netns, "link set eth0 up")?;
            let address = of_family(&told, false)?;
            let kept = view::addresses(&pod.netns, "eth0")?.iter().any(|(there, _)| *there == address);
            ensure(kept, format!("{address} still there"), "it is gone")
        }),
    ]);
    rows
}

/// IPv4 alone, or IPv6 beside it.
fn families(bench: &mut Bench<'_>, v4: bool) {
    if !v4 {
        bench.dual_stack();
    }
}

/// The address of one family in a result.
fn of_family(told: &Value, v4: bool) -> Result<IpAddr, Miss> {
    let addresses = result::addresses(told)?.into_iter().map(|address| address.addr());
    let address = addresses.into_iter().find(|address| address.is_ipv4() == v4);
    address.ok_or_else(|| wrong("an address of either family", told))
}

fn set(netns: &Netns, key: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/net/ipv6/conf/{key}");
    netns.run(|| fs::write(&file, value))?.with_context(|| format!("write {file}"))
}
