//! A5: DEL, whatever is left of the container.

use std::fs;

use serde_json::{Value, json};

use super::{
    super::{
        bench::{Bench, Pod, ip},
        outcome::{Check, Miss, case, ensure, same},
        plugin::Call,
        view,
    },
    Row, row,
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("R-DEL-1", "DEL", "can be repeated", |bench| {
            let (pod, _) = bench.attached("a")?;
            (1..=3).try_for_each(|time| case(format!("DEL {time}"), bench.del(&pod)))
        }),
        row(
            "R-DEL-1",
            "DEL",
            "removes the interface, the host's end, its routes, and gives the address back",
            |bench| {
                bench.pool(1);
                let before = bench.warm()?;
                let (pod, _) = bench.attached("a")?;
                bench.del(&pod)?;
                view::absent(&pod.netns, "eth0")?;
                bench.unchanged_since(&before)?;
                bench.free_addresses(1)
            },
        ),
    ];
    rows.extend([
        detached("R-DEL-2", "CNI_NETNS is empty", |_, call, _| Ok(call.env("CNI_NETNS", ""))),
        detached("R-DEL-2", "CNI_NETNS is absent", |_, call, _| Ok(call.without("CNI_NETNS"))),
        detached("R-DEL-2", "CNI_NETNS leads nowhere", |bench, call, _| {
            Ok(call.env("CNI_NETNS", bench.file("missing")))
        }),
        detached("R-DEL-2", "CNI_NETNS has become a regular file", |bench, call, _| {
            let file = bench.file("regular");
            fs::write(&file, "no namespace").map_err(anyhow::Error::from)?;
            Ok(call.env("CNI_NETNS", file))
        }),
        detached("R-DEL-2", "prevResult is there", |bench, call, told| {
            Ok(call.config(&bench.config_with("prevResult", told)))
        }),
        detached("R-DEL-2", "prevResult is malformed", |bench, call, _| {
            Ok(call.config(&bench.config_with("prevResult", &json!({"cniVersion": bench.version, "ips": 5}))))
        }),
        detached("R-DEL-2", "runtimeConfig is malformed", |bench, call, _| {
            Ok(call.config(&bench.config_with("runtimeConfig", &json!("nonsense"))))
        }),
        detached("R-DEL-2", "a capability in runtimeConfig is malformed", |bench, call, _| {
            let broken = json!({"portMappings": {"HostPort": "x"}, "bandwidth": [], "mac": 7, "ips": "x"});
            Ok(call.config(&bench.config_with("runtimeConfig", &broken)))
        }),
        detached("A8", "CNI_ARGS is malformed", |_, call, _| Ok(call.env("CNI_ARGS", "=;nonsense;IP=x;a=b=c"))),
    ]);
    rows.extend([
        row("R-DEL-2", "DEL", "cleans up after a container whose interface is gone", |bench| {
            bench.pool(1);
            let before = bench.warm()?;
            let (pod, _) = bench.attached("a")?;
            ip(&pod.netns, "link delete eth0")?;
            bench.del(&pod)?;
            bench.unchanged_since(&before)?;
            bench.free_addresses(1)
        }),
        row("R-DEL-2", "DEL", "removes the interfaces of a container of which no record is left", |bench| {
            let before = bench.warm()?;
            let (pod, _) = bench.attached("a")?;
            for directory in [bench.state_dir(), bench.data_dir()] {
                fs::remove_dir_all(&directory).map_err(anyhow::Error::from)?;
            }
            bench.del(&pod)?;
            view::absent(&pod.netns, "eth0")?;
            bench.unchanged_since(&before)
        }),
        row("R-DEL-3", "DEL", "gives the address back when the namespace has ended", |bench| {
            bench.pool(1);
            let before = bench.warm()?;
            let (pod, _) = bench.attached("a")?;
            let (id, path) = pod.end()?;
            let call = bench.command("DEL").env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0");
            call.env("CNI_NETNS", path).run()?.silence()?;
            bench.unchanged_since(&before)?;
            bench.free_addresses(1)
        }),
    ]);
    rows.extend(strangers());
    rows
}

/// Rows about what a DEL has to leave alone.
fn strangers() -> Vec<Row> {
    vec![
        row("R-DEL-4", "DEL", "leaves an eth0 alone that no ADD has made", |bench| {
            let pod = bench.pod("a")?;
            foreign(bench, &pod, "link add eth0 type bridge", false)
        }),
        row("R-DEL-4", "DEL", "leaves an eth0 alone that made its ADD fail", |bench| {
            let pod = bench.pod("a")?;
            foreign(bench, &pod, "link add eth0 type veth peer name other0", true)
        }),
        row("R-DEL-4", "DEL", "leaves the host's own eth0 alone where CNI_NETNS is the host's", |bench| {
            let pod = bench.pod("a")?;
            ip(&bench.host, "link add eth0 type bridge")?;
            bench.call("DEL", &pod).env("CNI_NETNS", &bench.host_path).run()?;
            ensure(view::device(&bench.host, "eth0")?.is_some(), "eth0 of the host still there", "it is gone")
        }),
        row("R-DEL-5", "DEL", "succeeds where no ADD ever was", |bench| {
            let pod = bench.pod("a")?;
            bench.del(&pod)
        }),
        row("R-DEL-5", "DEL", "succeeds where no ADD ever was and the namespace is gone", |bench| {
            let pod = bench.pod("a")?;
            bench.call("DEL", &pod).env("CNI_NETNS", "").run()?.silence()
        }),
        row("R-DEL-5", "DEL", "of a container that was never added leaves the others as they are", |bench| {
            let (pod, _) = bench.attached("a")?;
            let (before, other) = (view::settled(&bench.host)?, bench.pod("b")?);
            bench.del(&other)?;
            bench.unchanged_since(&before)?;
            ensure(view::device(&pod.netns, "eth0")?.is_some(), "eth0 of the other container still there", "it is gone")
        }),
    ]
}

/// A row about a DEL that is not told everything, and has to remove the attachment all the same. What is in a namespace
/// that the runtime does not name goes with it.
fn detached(
    rule: &'static str,
    circumstance: &str,
    vary: impl for<'a> Fn(&'a Bench<'_>, Call<'a>, &Value) -> Result<Call<'a>, Miss> + 'static,
) -> Row {
    row(rule, "DEL", format!("succeeds and cleans up where {circumstance}"), move |bench| {
        bench.pool(1);
        let before = bench.warm()?;
        let (pod, told) = bench.attached("a")?;
        vary(bench, bench.call("DEL", &pod), &told)?.run()?.silence()?;
        pod.end()?;
        bench.unchanged_since(&before)?;
        bench.free_addresses(1)
    })
}

fn foreign(bench: &Bench<'_>, pod: &Pod, make: &str, add_first: bool) -> Check {
    ip(&pod.netns, make)?;
    ip(&pod.netns, "address add 192.0.2.7/24 dev eth0")?;
    let before = view::settled(&pod.netns)?;
    if add_first {
        bench.call("ADD", pod).run()?.error()?;
    }
    bench.del(pod)?;
    same("the container's devices and routes", &view::view(&pod.netns)?, &before)
}
