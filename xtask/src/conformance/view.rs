//! What `ip` shows of a namespace: how the suite looks at a plugin's work without knowing the plugin.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use minicni::link::Netns;
use serde_json::Value;

use super::{
    bench::ip,
    outcome::{Check, wrong},
};

/// How long the kernel may take to end what was deleted.
const SETTLING: Duration = Duration::from_secs(3);

/// Devices, addresses and routes, a line each.
pub(super) type View = BTreeSet<String>;

/// What is there now.
pub(super) fn view(netns: &Netns) -> Result<View> {
    let mut lines = View::new();
    for link in shown(netns, "address show")? {
        let name = text(&link, "ifname");
        lines.insert(format!("dev {name} {}", up(&link)));
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let local = text(address, "local");
            // The kernel gives link-local ones when it likes.
            if text(address, "scope") != "link" {
                lines.insert(format!("dev {name} address {local}/{}", address["prefixlen"]));
            }
        }
    }
    for family in ["-4", "-6"] {
        for route in shown(netns, &format!("{family} route show table all"))? {
            let destination = text(&route, "dst");
            let of_the_kernel = ["local", "broadcast", "anycast", "multicast"].contains(&text(&route, "type"));
            if !of_the_kernel && !destination.starts_with("fe80:") && !destination.starts_with("ff00:") {
                lines.insert(format!(
                    "route {destination} via {} dev {}",
                    text(&route, "gateway"),
                    text(&route, "dev")
                ));
            }
        }
    }
    Ok(lines)
}

/// Whether an administrator wants it up. What the carrier does is nobody's doing.
fn up(link: &Value) -> &'static str {
    let is_up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
    if is_up { "up" } else { "down" }
}

/// What is there once two looks in a row see the same.
pub(super) fn settled(netns: &Netns) -> Result<View> {
    let mut before = view(netns)?;
    let start = Instant::now();
    loop {
        sleep(Duration::from_millis(20));
        let now = view(netns)?;
        if now == before || start.elapsed() > SETTLING {
            return Ok(now);
        }
        before = now;
    }
}

/// What is there as soon as it is as expected, or else after a while.
pub(super) fn until(netns: &Netns, expected: &View) -> Result<View> {
    let start = Instant::now();
    loop {
        let now = view(netns)?;
        if now == *expected || start.elapsed() > SETTLING {
            return Ok(now);
        }
        sleep(Duration::from_millis(20));
    }
}

/// What came and what went.
pub(super) fn difference(before: &View, now: &View) -> String {
    let come = now.difference(before).map(|line| format!("come: {line}"));
    let gone = before.difference(now).map(|line| format!("gone: {line}"));
    come.chain(gone).collect::<Vec<_>>().join("; ")
}

/// A device, if it is there.
pub(super) fn device(netns: &Netns, name: &str) -> Result<Option<Value>> {
    let mut links = shown(netns, "-d address show")?.into_iter();
    Ok(links.find(|link| text(link, "ifname") == name))
}

/// Fails where a container has an interface.
pub(super) fn absent(netns: &Netns, ifname: &str) -> Check {
    let flags =
        |device: Value| format!("there is one, with flags {} and addresses {}", device["flags"], device["addr_info"]);
    device(netns, ifname)?.map_or(Ok(()), |device| Err(wrong(format!("no {ifname} in the container"), flags(device))))
}

/// The names of the veth devices.
pub(super) fn veths(netns: &Netns) -> Result<Vec<String>> {
    let links = shown(netns, "-d address show")?;
    let veths = links.iter().filter(|link| link["linkinfo"]["info_kind"] == "veth");
    Ok(veths.map(|link| text(link, "ifname").to_owned()).collect())
}

/// The name of the host's end of a container's veth pair.
pub(super) fn host_end(host: &Netns, pod: &Netns, ifname: &str) -> Result<String> {
    let device = device(pod, ifname)?.with_context(|| format!("there is no {ifname} in the container"))?;
    let index = device["link_index"].as_u64().with_context(|| format!("{ifname} has no peer"))?;
    let links = shown(host, "address show")?;
    let peer = links.iter().find(|link| link["ifindex"] == index);
    Ok(text(peer.with_context(|| format!("the peer of {ifname} is not on the host"))?, "ifname").to_owned())
}

/// The addresses of a device but for link-local ones, each with whether duplicate address detection is done.
pub(super) fn addresses(netns: &Netns, ifname: &str) -> Result<Vec<(IpAddr, bool)>> {
    let device = device(netns, ifname)?.unwrap_or_default();
    let addresses = device["addr_info"].as_array().cloned().unwrap_or_default();
    let global = addresses.iter().filter(|address| text(address, "scope") != "link");
    global.map(|address| Ok((text(address, "local").parse()?, address["tentative"] != true))).collect()
}

/// The main table's routes of a device to exactly these addresses, as `ip` names them.
pub(super) fn routes_to(host: &Netns, device: &str, addresses: &[IpAddr]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        for route in shown(host, &format!("{family} route show dev {device}"))? {
            let destination = text(&route, "dst");
            if destination.parse().is_ok_and(|destination: IpAddr| addresses.contains(&destination)) {
                found.push(destination.to_owned());
            }
        }
    }
    Ok(found)
}

fn shown(netns: &Netns, what: &str) -> Result<Vec<Value>> {
    let text = ip(netns, &format!("-j {what}"))?;
    // Where there is nothing, some versions print nothing.
    if text.is_empty() { Ok(Vec::new()) } else { Ok(serde_json::from_str(&text)?) }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_came_and_what_went() {
        let view = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<View>();
        let text = difference(&view(&["dev a", "dev b"]), &view(&["dev b", "dev c"]));
        assert_eq!(text, "come: dev c; gone: dev a");
        assert_eq!(difference(&view(&["dev a"]), &view(&["dev a"])), "");
    }
}
