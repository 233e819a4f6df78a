//! A3: the result of ADD, in the shape of each version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    super::{
        bench::{Bench, HOST_ADDRESSES, Pod, ranges},
        outcome::{Check, Miss, case, ensure, not_applicable, same, same_json, wrong},
        plugin::VERSIONS,
        view,
    },
    Row, row,
};

const V4: &str = "10.77.0.0/24";
const V6: &str = "fd77::/64";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        rows.push(row("A3", "ADD", format!("a result of {version} has exactly its shape"), move |bench| {
            bench.need(version)?;
            shape(bench, version, &[V4])
        }));
        rows.push(row("A3", "ADD", format!("a result of {version} has both families"), move |bench| {
            bench.need(version)?;
            shape(bench, version, &[V4, V6])
        }));
    }
    rows.extend([
        row("A3", "ADD", "the first family of the configuration comes first, IPv6 too", |bench| {
            bench.ranges = ranges(&[V6, V4]);
            let (_, result) = bench.attached("a")?;
            let seen: Vec<_> = addresses(&result)?.into_iter().map(|address| address.addr().is_ipv6()).collect();
            same("whether each address is IPv6:", &seen, &vec![true, false])
        }),
        row("A3", "ADD", "IPv6 alone works", |bench| {
            bench.ranges = ranges(&[V6]);
            let version = bench.version;
            shape(bench, version, &[V6])
        }),
        row("A0.4", "ADD", "the address names the entry of CNI_IFNAME, whose MAC is the interface's", |bench| {
            every_version(bench, |_, pod, result| index(pod, result))
        }),
        row("A0.4", "ADD", "each of two addresses names the entry of CNI_IFNAME", |bench| {
            bench.dual_stack();
            let (pod, result) = bench.attached("a")?;
            index(&pod, &result)
        }),
        row("A3", "ADD", "a dns of which nothing is known is {} before 1.0.0, and absent from then on", |bench| {
            every_version(bench, |_, _, result| {
                let expected = (result["cniVersion"].as_str() < Some("1.0.0")).then(|| json!({}));
                let said = |dns: Option<&Value>| dns.map_or("no dns".to_owned(), |dns| format!("dns {dns}"));
                ensure(result.get("dns") == expected.as_ref(), said(expected.as_ref()), said(result.get("dns")))
            })
        }),
        row("A3", "ADD", "the container's interface has CNI_NETNS as its sandbox, letter by letter", |bench| {
            let pod = bench.pod("a")?;
            let unusual = format!("/run/netns/../netns/./{}", pod.path.file_name().unwrap_or_default().display());
            let result = bench.call("ADD", &pod).env("CNI_NETNS", &unusual).run()?.result()?;
            let interface = interfaces(&result).find(|interface| interface["name"] == "eth0");
            same_json("sandbox", &interface.unwrap_or_default()["sandbox"], &json!(unusual))
        }),
        row("A3", "ADD", "an interface of the host has no sandbox, and is there", |bench| {
            let (pod, result) = bench.attached("a")?;
            let end = view::host_end(&bench.host, &pod.netns, "eth0")?;
            let entry = interfaces(&result).find(|interface| interface["name"] == end.as_str());
            let plain = entry.is_some_and(|entry| entry["sandbox"].as_str().unwrap_or_default().is_empty());
            ensure(plain, format!("an entry for {end} without sandbox"), &result)
        }),
        row("A3", "ADD", "ips has the container's addresses and no other, gateway and host left out", |bench| {
            let (pod, result) = bench.attached("a")?;
            let told: Vec<_> = addresses(&result)?.into_iter().map(|address| address.addr()).collect();
            let mut there: Vec<_> =
                view::addresses(&pod.netns, "eth0")?.into_iter().map(|(address, _)| address).collect();
            there.sort();
            same("addresses", &sorted(&told), &there)?;
            ensure(!told.iter().any(|address| HOST_ADDRESSES.contains(address)), "no address of the host", &result)
        }),
        row("A3", "ADD", "a container's MAC is one that a single interface may have", |bench| {
            let (pod, _) = bench.attached("a")?;
            let device = view::device(&pod.netns, "eth0")?.unwrap_or_default();
            let first = device["address"].as_str().and_then(|mac| u8::from_str_radix(mac.get(..2)?, 16).ok());
            ensure(first.is_some_and(|first| first & 1 == 0), "an individual address", &device["address"])
        }),
    ]);
    rows
}

fn every_version(bench: &mut Bench<'_>, judge: impl Fn(&Bench<'_>, &Pod, &Value) -> Check) -> Check {
    let versions: Vec<_> = VERSIONS.into_iter().skip(2).filter(|version| bench.plugin.serves(version)).collect();
    if versions.is_empty() {
        return Err(not_applicable("VERSION lists none whose results have interfaces"));
    }
    versions.into_iter().try_for_each(|version| {
        bench.version = version;
        let (pod, result) = case(version, bench.attached(&format!("v{version}")))?;
        case(version, judge(bench, &pod, &result))
    })
}

fn shape(bench: &mut Bench<'_>, version: &str, subnets: &[&str]) -> Check {
    bench.ranges = ranges(subnets);
    let (_, result) = bench.attached("a")?;
    same_json("cniVersion", &result["cniVersion"], &json!(version))?;
    let wanted: Vec<IpNet> = subnets.iter().filter_map(|subnet| subnet.parse().ok()).collect();
    if version < "0.3.0" { old_shape(&result, &wanted) } else { new_shape(&result, version, &wanted) }
}

/// 0.1.0 and 0.2.0: one address per family, no interfaces.
fn old_shape(result: &Value, subnets: &[IpNet]) -> Check {
    ensure(result["ips"].is_null() && result["interfaces"].is_null(), "neither ips nor interfaces", result)?;
    for (key, v4) in [("ip4", true), ("ip6", false)] {
        let Some(subnet) = subnets.iter().find(|subnet| subnet.addr().is_ipv4() == v4) else {
            ensure(result[key].is_null(), format!("no {key}"), result)?;
            continue;
        };
        within(&result[key]["ip"], subnet)?;
        let gateway = &result[key]["gateway"];
        ensure(gateway.is_null() || parsed::<IpAddr>(gateway).is_some(), "a gateway without prefix length", gateway)?;
        routes(&result[key]["routes"])?;
    }
    ensure(result["dns"].is_object(), "dns, an object", result)
}

fn new_shape(result: &Value, version: &str, subnets: &[IpNet]) -> Check {
    ensure(result["ip4"].is_null() && result["ip6"].is_null(), "neither ip4 nor ip6", result)?;
    let ips = result["ips"].as_array().cloned().unwrap_or_default();
    same("number of addresses", &ips.len(), &subnets.len())?;
    for (ip, subnet) in ips.iter().zip(subnets) {
        within(&ip["address"], subnet)?;
        let family = if subnet.addr().is_ipv4() { "4" } else { "6" };
        let expected = if version < "1.0.0" { json!(family) } else { Value::Null };
        same_json("ips[].version", &ip["version"], &expected)?;
        let gateway = &ip["gateway"];
        ensure(gateway.is_null() || parsed::<IpAddr>(gateway).is_some(), "a gateway without prefix length", gateway)?;
    }
    routes(&result["routes"])?;
    let names = interfaces(result).all(|interface| interface["name"].as_str().is_some_and(|name| !name.is_empty()));
    ensure(names && interfaces(result).count() > 0, "interfaces, each with a name", result)?;
    if version < "1.0.0" { ensure(result["dns"].is_object(), "dns, an object", result) } else { Ok(()) }
}

fn within(address: &Value, subnet: &IpNet) -> Check {
    let inside = parsed::<IpNet>(address).is_some_and(|address| subnet.contains(&address.addr()));
    ensure(inside, format!("an address of {subnet} with prefix length"), address)
}

fn routes(routes: &Value) -> Check {
    for route in routes.as_array().into_iter().flatten() {
        ensure(parsed::<IpNet>(&route["dst"]).is_some(), "routes[].dst, a prefix", route)?;
        let gw = &route["gw"];
        ensure(gw.is_null() || parsed::<IpAddr>(gw).is_some(), "routes[].gw, an address", route)?;
    }
    Ok(())
}

fn index(pod: &Pod, result: &Value) -> Check {
    let entries: Vec<_> = interfaces(result).collect();
    let device = view::device(&pod.netns, "eth0")?.unwrap_or_default();
    for ip in result["ips"].as_array().into_iter().flatten() {
        let index = ip["interface"].as_u64().and_then(|index| usize::try_from(index).ok());
        let entry = index.and_then(|index| entries.get(index)).copied();
        let ours = entry.is_some_and(|entry| entry["name"] == "eth0" && entry["mac"] == device["address"]);
        ensure(ours, format!("an index of the entry eth0 with MAC {}", device["address"]), result)?;
    }
    Ok(())
}

fn interfaces(result: &Value) -> impl Iterator<Item = &Value> {
    result["interfaces"].as_array().into_iter().flatten()
}

/// The addresses of a result from 0.3.0 on.
pub(super) fn addresses(result: &Value) -> Result<Vec<IpNet>, Miss> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let addresses: Option<Vec<_>> = ips.map(|ip| parsed(&ip["address"])).collect();
    let addresses = addresses.filter(|addresses| !addresses.is_empty());
    addresses.ok_or_else(|| wrong("ips with addresses", result))
}

/// The first address of a result from 0.3.0 on.
pub(super) fn address(result: &Value) -> Result<IpAddr, Miss> {
    Ok(addresses(result)?[0].addr())
}

fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort();
    addresses
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(version: &str, result: &Value) -> Check {
        let subnets = [V4.parse().unwrap()];
        if version < "0.3.0" { old_shape(result, &subnets) } else { new_shape(result, version, &subnets) }
    }

    #[test]
    fn each_version_has_its_shape_and_no_other() {
        let old = json!({"ip4": {"ip": "10.77.0.2/24", "gateway": "10.77.0.1"}, "dns": {}});
        let middle = json!({
            "interfaces": [{"name": "eth0"}], "dns": {},
            "ips": [{"version": "4", "address": "10.77.0.2/32", "interface": 0}],
        });
        let new = json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.77.0.2/32", "interface": 0}]});
        let shapes = [("0.2.0", &old), ("0.4.0", &middle), ("1.0.0", &new)];
        for (version, _) in shapes {
            for (of, result) in shapes {
                assert_eq!(judge(version, result).is_ok(), version == of, "{version} of {of}");
            }
        }
    }

    #[test]
    fn what_is_no_address_of_the_network_is_found() {
        for address in ["10.77.0.2", "10.78.0.2/24", "x"] {
            let result = json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": address}]});
            assert!(judge("1.1.0", &result).is_err(), "{address}");
        }
    }
}
