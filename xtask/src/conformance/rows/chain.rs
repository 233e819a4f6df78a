//! R-ADD-5 to R-ADD-7: results of other plugins, name servers, further attachments.

use serde_json::{Value, json};

use super::{
    super::{
        bench::Bench,
        outcome::{Check, ensure, same_json},
        packet::reach,
        view,
    },
    Row, result, row,
};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "R-ADD-5",
            "ADD",
            "a prevResult is passed on: its entries first, ours after them, our indexes shifted",
            merged,
        ),
        row("R-IN-6", "ADD", "a prevResult without a cniVersion of its own is read as the configuration's", |bench| {
            let pod = bench.pod("a")?;
            let previous = json!({"interfaces": [{"name": "other0"}], "ips": [], "routes": null});
            let answer = bench.call("ADD", &pod).config(&bench.config_with("prevResult", &previous)).run()?;
            answer.result().map(drop)
        }),
        row("R-ADD-5", "ADD", "the DNS of a prevResult is passed on where the configuration has none", |bench| {
            let pod = bench.pod("a")?;
            let dns = json!({"nameservers": ["192.0.2.53"], "search": ["example.org"]});
            let previous = json!({"cniVersion": bench.version, "dns": dns});
            let call = bench.call("ADD", &pod).config(&bench.config_with("prevResult", &previous));
            same_json("dns", &call.run()?.result()?["dns"], &dns)
        }),
        row("R-ADD-6", "ADD", "the configuration's DNS is returned", |bench| {
            let pod = bench.pod("a")?;
            let dns = json!({"nameservers": ["192.0.2.53"], "domain": "d", "search": ["s"], "options": ["ndots:2"]});
            let result = bench.call("ADD", &pod).config(&bench.config_with("dns", &dns)).run()?.result()?;
            same_json("dns", &result["dns"], &dns)
        }),
        row(
            "R-ADD-7",
            "ADD",
            "a second interface of a container is an attachment with an address of its own",
            |bench| {
                let (pod, told) = bench.attached("a")?;
                let second = bench.call("ADD", &pod).env("CNI_IFNAME", "eth1").run()?.result()?;
                let (one, other) = (result::address(&told)?, result::address(&second)?);
                ensure(one != other, "two addresses", format!("{one} twice"))
            },
        ),
        row("R-ADD-7", "DEL", "removing a container's second interface leaves its first one at work", |bench| {
            let (pod, told) = bench.attached("a")?;
            bench.call("ADD", &pod).env("CNI_IFNAME", "eth1").run()?.result()?;
            bench.call("DEL", &pod).env("CNI_IFNAME", "eth1").run()?.silence()?;
            view::absent(&pod.netns, "eth1")?;
            reach(&bench.host, &pod.netns, result::address(&told)?)
        }),
        row("R-ADD-7", "DEL", "a late DEL of an old container leaves a new one of the same pod name alone", |bench| {
            let (old, new) = (bench.pod("old")?, bench.pod("new")?);
            let named = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0";
            bench.call("ADD", &old).env("CNI_ARGS", named).run()?.result()?;
            let told = bench.call("ADD", &new).env("CNI_ARGS", named).run()?.result()?;
            bench.call("DEL", &old).env("CNI_ARGS", named).run()?.silence()?;
            reach(&bench.host, &new.netns, result::address(&told)?)
        }),
    ]
}

fn merged(bench: &mut Bench<'_>) -> Check {
    let pod = bench.pod("a")?;
    let interfaces = json!([
        {"name": "other0", "mac": "02:00:00:00:00:01"},
        {"name": "net1", "mac": "02:00:00:00:00:02", "sandbox": pod.path},
    ]);
    let ips = json!([{"address": "192.0.2.9/24", "gateway": "192.0.2.1", "interface": 1}]);
    let routes = json!([{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}]);
    let previous = json!({"cniVersion": bench.version, "interfaces": interfaces, "ips": ips, "routes": routes});
    let answer = bench.call("ADD", &pod).config(&bench.config_with("prevResult", &previous)).run()?;
    let told = answer.result()?;
    for (key, entries) in [("interfaces", &interfaces), ("ips", &ips), ("routes", &routes)] {
        let entries = entries.as_array().map_or(&[][..], Vec::as_slice);
        let first = told[key].as_array().and_then(|told| told.get(..entries.len()));
        ensure(first == Some(entries), format!("{key} that begin with {}", json!(entries)), &told)?;
    }
    let ours = told["ips"][1]["interface"].as_u64().and_then(|index| usize::try_from(index).ok());
    let entry = ours.map_or(&Value::Null, |index| &told["interfaces"][index]);
    ensure(entry["name"] == "eth0", "our address, pointing at eth0 behind the entries before", &told)
}
