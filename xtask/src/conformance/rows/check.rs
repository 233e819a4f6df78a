//! A6: CHECK.

use std::fs;

use serde_json::{Value, json};

use super::{
    super::{
        bench::{Bench, Pod, ip},
        outcome::{Check, Miss, case, not_applicable, same},
        view,
    },
    Row, result, row,
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<_> = ["0.4.0", "1.0.0", "1.1.0"]
        .into_iter()
        .map(|version| {
            row("A6", "CHECK", format!("passes right after an ADD of {version}, again and again"), move |bench| {
                bench.need(version)?;
                let (pod, told) = bench.attached("a")?;
                (0..2).try_for_each(|_| bench.check(&pod, &told)?.silence())
            })
        })
        .collect();
    rows.extend([
        row("A6", "CHECK", "passes for both families", |bench| {
            bench.dual_stack();
            let (pod, told) = bench.attached("a")?;
            bench.check(&pod, &told)?.silence()
        }),
        row("A6", "CHECK", "passes where there are more addresses and routes", |bench| {
            let (pod, told) = bench.attached("a")?;
            ip(&pod.netns, "address add 192.0.2.7/24 dev eth0")?;
            ip(&pod.netns, "route add 198.51.100.0/24 dev eth0")?;
            bench.check(&pod, &told)?.silence()
        }),
        row("A6", "CHECK", "changes nothing, where all is well and where it is not", |bench| {
            let (pod, told) = bench.attached("a")?;
            let look =
                |bench: &Bench<'_>| -> Result<_, Miss> { Ok((view::view(&bench.host)?, view::view(&pod.netns)?)) };
            let before = look(bench)?;
            bench.check(&pod, &told)?.success()?;
            same("host and container", &look(bench)?, &before)?;
            ip(&pod.netns, "address flush dev eth0")?;
            let before = look(bench)?;
            bench.check(&pod, &told)?.error()?;
            same("host and container", &look(bench)?, &before)
        }),
        row("A6", "CHECK", "fails without prevResult", |bench| {
            let (pod, _) = bench.attached("a")?;
            bench.call("CHECK", &pod).run()?.error().map(drop)
        }),
        row("A6", "CHECK", "fails for a container that was never added", |bench| {
            let (pod, told) = bench.attached("a")?;
            let other = bench.pod("b")?;
            let told = replaced(&told, &pod.path.to_string_lossy(), &other.path.to_string_lossy())?;
            bench.check(&other, &told)?.error().map(drop)
        }),
        row("A6", "CHECK", "fails where prevResult is of another sandbox", |bench| {
            let (pod, mut told) = bench.attached("a")?;
            for interface in told["interfaces"].as_array_mut().into_iter().flatten() {
                if interface["name"] == "eth0" {
                    interface["sandbox"] = json!("/run/netns/another");
                }
            }
            bench.check(&pod, &told)?.error().map(drop)
        }),
        row("A6", "CHECK", "fails where prevResult has another MAC", |bench| {
            let (pod, told) = bench.attached("a")?;
            let device = view::device(&pod.netns, "eth0")?.unwrap_or_default();
            let mac = device["address"].as_str().unwrap_or("none").to_owned();
            bench.check(&pod, &replaced(&told, &mac, "02:00:00:00:00:99")?)?.error().map(drop)
        }),
        row("A6", "CHECK", "fails where prevResult has another address", |bench| {
            let (pod, told) = bench.attached("a")?;
            let address = result::address(&told)?.to_string();
            bench.check(&pod, &replaced(&told, &address, "10.77.0.250")?)?.error().map(drop)
        }),
    ]);
    rows.extend(damages());
    rows
}

/// Rows about what a CHECK has to find.
fn damages() -> Vec<Row> {
    vec![
        broken("the interface is gone", |_, pod, _| in_pod(pod, "link delete eth0")),
        broken("the interface has become one of another kind", |_, pod, told| {
            let address = result::addresses(told)?[0];
            in_pod(pod, "link delete eth0")?;
            in_pod(pod, "link add eth0 type bridge")?;
            in_pod(pod, &format!("address add {address} dev eth0"))?;
            in_pod(pod, "link set eth0 up")
        }),
        broken("the interface has another MAC", |_, pod, _| in_pod(pod, "link set eth0 address 02:00:00:00:00:99")),
        broken("the interface is down", |_, pod, _| in_pod(pod, "link set eth0 down")),
        broken("the address is gone", |_, pod, _| in_pod(pod, "address flush dev eth0 scope global")),
        broken("the route is gone", |_, pod, _| in_pod(pod, "route delete default")),
        broken("the host's end is down", |bench, pod, _| {
            let end = view::host_end(&bench.host, &pod.netns, "eth0")?;
            Ok(ip(&bench.host, &format!("link set {end} down")).map(drop)?)
        }),
        broken("the host's route to the container is gone", |bench, pod, told| {
            let end = view::host_end(&bench.host, &pod.netns, "eth0")?;
            let routes = view::routes_to(&bench.host, &end, &[result::address(told)?])?;
            if routes.is_empty() {
                return Err(not_applicable("the plugin makes no route per container on the host"));
            }
            routes
                .iter()
                .try_for_each(|route| Ok(ip(&bench.host, &format!("route delete {route} dev {end}")).map(drop)?))
        }),
        broken("the host's route to the container leads elsewhere", |bench, pod, told| {
            let (end, address) = (view::host_end(&bench.host, &pod.netns, "eth0")?, result::address(told)?);
            if view::routes_to(&bench.host, &end, &[address])?.is_empty() {
                return Err(not_applicable("the plugin makes no route per container on the host"));
            }
            ip(&bench.host, &format!("route delete {address} dev {end}"))?;
            Ok(ip(&bench.host, &format!("route add {address} dev uplink0")).map(drop)?)
        }),
        broken("nobody knows of the address any more", |bench, _, _| {
            for directory in [bench.state_dir(), bench.data_dir()] {
                fs::remove_dir_all(&directory).map_err(anyhow::Error::from)?;
            }
            Ok(())
        }),
        broken("the address was given back", |bench, pod, _| {
            bench.call("DEL", pod).env("CNI_NETNS", "").run()?.success()
        }),
    ]
}

/// A row about a CHECK that passes, and fails once something is broken.
fn broken(what: &str, damage: impl Fn(&Bench<'_>, &Pod, &Value) -> Check + 'static) -> Row {
    row("A6", "CHECK", format!("fails where {what}"), move |bench| {
        let (pod, told) = bench.attached("a")?;
        case("before", bench.check(&pod, &told)?.silence())?;
        damage(bench, &pod, &told)?;
        bench.check(&pod, &told)?.error().map(drop)
    })
}

fn in_pod(pod: &Pod, arguments: &str) -> Check {
    ip(&pod.netns, arguments)?;
    Ok(())
}

/// A result with a text replaced wherever it stands.
fn replaced(told: &Value, from: &str, to: &str) -> Result<Value, Miss> {
    let text = told.to_string().replace(from, to);
    Ok(serde_json::from_str(&text).map_err(anyhow::Error::from)?)
}
