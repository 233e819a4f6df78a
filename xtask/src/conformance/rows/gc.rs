//! A7: GC.

use serde_json::{Value, json};

use super::{
    super::{
        bench::{Bench, Pod},
        outcome::{Check, ensure},
        packet::reach,
        view,
    },
    Row, result, row,
};

const VALID: &str = "cni.dev/valid-attachments";
const OLD_VALID: &str = "cni.dev/attachments";

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<_> = [("A7", "[]", json!([])), ("A0.10", "null, as CRI-O sends it at boot,", Value::Null)]
        .into_iter()
        .map(|(rule, name, list)| {
            row(rule, "GC", format!("a list that is {name} removes every attachment"), move |bench| {
                let before = bench.warm()?;
                let (pod, _) = bench.attached("a")?;
                collect(bench, &[(VALID, list.clone())])?;
                view::absent(&pod.netns, "eth0")?;
                bench.unchanged_since(&before)
            })
        })
        .collect();
    rows.extend([[VALID, OLD_VALID].as_slice(), &[VALID], &[OLD_VALID]].map(|keys| {
        row("A7", "GC", format!("keeps what {} lists and removes the others", keys.join(" and ")), move |bench| {
            let (kept, told) = bench.attached("kept")?;
            let (other, _) = bench.attached("other")?;
            let list = listed(&[&kept]);
            collect(bench, &keys.iter().map(|key| (*key, list.clone())).collect::<Vec<_>>())?;
            view::absent(&other.netns, "eth0")?;
            reach(&bench.host, &kept.netns, result::address(&told)?)
        })
    }));
    rows.extend([
        row("A7", "GC", "gives the addresses of what it removes back", |bench| {
            bench.pool(2);
            for id in ["a", "b"] {
                bench.attached(id)?;
            }
            collect(bench, &[(VALID, json!([]))])?;
            bench.free_addresses(2)
        }),
        row("A7", "GC", "removes what is left of a container whose namespace has ended", |bench| {
            bench.pool(1);
            let before = bench.warm()?;
            let (pod, _) = bench.attached("a")?;
            pod.end()?;
            collect(bench, &[(VALID, json!([]))])?;
            bench.unchanged_since(&before)?;
            bench.free_addresses(1)
        }),
        row("A7", "GC", "tells a container's interfaces apart", |bench| {
            let (pod, told) = bench.attached("a")?;
            bench.call("ADD", &pod).env("CNI_IFNAME", "eth1").run()?.result()?;
            collect(bench, &[(VALID, listed(&[&pod]))])?;
            view::absent(&pod.netns, "eth1")?;
            reach(&bench.host, &pod.netns, result::address(&told)?)
        }),
        row("A7", "GC", "without a list keeps what is alive", |bench| {
            let (pod, told) = bench.attached("a")?;
            collect(bench, &[])?;
            reach(&bench.host, &pod.netns, result::address(&told)?)
        }),
        row("A7", "GC", "leaves other networks alone", |bench| {
            let (pod, told) = bench.attached("a")?;
            let mut config = bench.config_with("name", &json!("other"));
            config["cniVersion"] = json!("1.1.0");
            config[VALID] = json!([]);
            bench.command("GC").config(&config).run()?.silence()?;
            reach(&bench.host, &pod.netns, result::address(&told)?)
        }),
        row("A7", "GC", "can be repeated, and does without any attachment", |bench| {
            let list = json!([{"containerID": "unknown", "ifname": "eth0"}]);
            (0..2).try_for_each(|_| collect(bench, &[(VALID, list.clone())]))
        }),
        row("A7", "GC", "a container that it removed can be deleted, and added anew", |bench| {
            let (pod, _) = bench.attached("a")?;
            collect(bench, &[(VALID, json!([]))])?;
            bench.del(&pod)?;
            let told = bench.add(&pod)?;
            reach(&bench.host, &pod.netns, result::address(&told)?)
        }),
        row("A7", "GC", "a list that is none is an error, and removes nothing", |bench| {
            let (pod, told) = bench.attached("a")?;
            for list in [json!("nonsense"), json!([5]), json!([{"containerID": 5}])] {
                let answer = bench.command("GC").config(&config(bench, &[(VALID, list)])).run()?;
                answer.error()?;
            }
            ensure(view::device(&pod.netns, "eth0")?.is_some(), "eth0 still there", "it is gone")?;
            reach(&bench.host, &pod.netns, result::address(&told)?)
        }),
    ]);
    rows
}

fn config(bench: &Bench<'_>, keys: &[(&str, Value)]) -> Value {
    let mut config = bench.config();
    // The version that brought GC, whether the plugin lists it or not.
    config["cniVersion"] = json!("1.1.0");
    for (key, list) in keys {
        config[*key] = list.clone();
    }
    config
}

fn collect(bench: &Bench<'_>, keys: &[(&str, Value)]) -> Check {
    bench.command("GC").config(&config(bench, keys)).run()?.silence()
}

fn listed(pods: &[&Pod]) -> Value {
    pods.iter().map(|pod| json!({"containerID": pod.id, "ifname": "eth0"})).collect()
}
