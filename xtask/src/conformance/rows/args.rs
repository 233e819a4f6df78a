//! A8: what comes in beside the configuration: `CNI_ARGS`, `args`, `runtimeConfig`.

use serde_json::{Value, json};

use super::{
    super::{
        bench::{Bench, Pod},
        outcome::{Check, Miss, case, ensure, same, same_json},
        plugin::Call,
        view,
    },
    Row, result, row,
};

const MAC: &str = "02:00:00:00:00:42";

pub(super) fn rows() -> Vec<Row> {
    vec![
        accepted(
            "CNI_ARGS of containerd, in any order",
            &[
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=0123;K8S_POD_UID=4567",
                "K8S_POD_UID=4567;K8S_POD_INFRA_CONTAINER_ID=0123;K8S_POD_NAME=a;IgnoreUnknown=1;K8S_POD_NAMESPACE=default",
            ],
        ),
        accepted(
            "unknown CNI_ARGS where IgnoreUnknown is 1 or true in any case",
            &["IgnoreUnknown=true;X=y", "X=y;IgnoreUnknown=TRUE", "X=y;IgnoreUnknown=1"],
        ),
        accepted("CNI_ARGS with empty pairs", &["", ";;IgnoreUnknown=1;;K8S_POD_NAME=a;"]),
        accepted("CNI_ARGS whose values have an equals sign", &["IgnoreUnknown=1;TOKEN=eA=="]),
        row("A8", "ADD", "IP of CNI_ARGS is the address", |bench| {
            let pod = bench.pod("a")?;
            has_address(&bench.call("ADD", &pod).env("CNI_ARGS", "IgnoreUnknown=1;IP=10.77.0.77"), "10.77.0.77")
        }),
        row("A8", "ADD", "MAC of CNI_ARGS is the interface's", |bench| {
            let pod = bench.pod("a")?;
            has_mac(&pod, &bench.call("ADD", &pod).env("CNI_ARGS", format!("IgnoreUnknown=1;MAC={MAC}"))).map(drop)
        }),
        row("A8", "ADD", "args.cni.ips is the address", |bench| asked(bench, "", &["10.77.0.78"], None, "10.77.0.78")),
        row("A8", "ADD", "args.cni.ips is stronger than IP of CNI_ARGS", |bench| {
            asked(bench, "IP=10.77.0.77", &["10.77.0.78"], None, "10.77.0.78")
        }),
        row("A8", "ADD", "runtimeConfig.ips is the address", |bench| {
            asked(bench, "", &[], Some("10.77.0.79/24"), "10.77.0.79")
        }),
        row("A8", "ADD", "runtimeConfig.ips is stronger than all others", |bench| {
            asked(bench, "IP=10.77.0.77", &["10.77.0.78"], Some("10.77.0.79/24"), "10.77.0.79")
        }),
        row("A8", "ADD", "runtimeConfig.ips may leave the prefix length out", |bench| {
            let pod = bench.pod("a")?;
            has_address(&bench.call("ADD", &pod).config(&capable(bench, "ips", &json!(["10.77.0.79"]))), "10.77.0.79")
        }),
        row("A0.1", "ADD", "keys of runtimeConfig are matched whatever the case of their letters", |bench| {
            let pod = bench.pod("a")?;
            let mut config = capable(bench, "ips", &Value::Null);
            config["runtimeConfig"] = json!({"IPs": ["10.77.0.79"]});
            has_address(&bench.call("ADD", &pod).config(&config), "10.77.0.79")
        }),
        row("A8", "ADD", "runtimeConfig.mac is the interface's, rather than MAC of CNI_ARGS", |bench| {
            let pod = bench.pod("a")?;
            let call = bench.call("ADD", &pod).config(&capable(bench, "mac", &json!(MAC)));
            has_mac(&pod, &call.env("CNI_ARGS", "IgnoreUnknown=1;MAC=02:00:00:00:00:41")).map(drop)
        }),
        row("A8", "CHECK", "passes for a container that has the MAC it asked for", |bench| {
            let pod = bench.pod("a")?;
            let config = capable(bench, "mac", &json!(MAC));
            let told = has_mac(&pod, &bench.call("ADD", &pod).config(&config))?;
            let config = with_result(config, &told);
            bench.call("CHECK", &pod).config(&config).run()?.silence()
        }),
        row("A8", "ADD", "an address that is taken is an error, and no other one is given instead", |bench| {
            let (one, other) = (bench.pod("a")?, bench.pod("b")?);
            let wanted = "IgnoreUnknown=1;IP=10.77.0.77";
            has_address(&bench.call("ADD", &one).env("CNI_ARGS", wanted), "10.77.0.77")?;
            bench.call("ADD", &other).env("CNI_ARGS", wanted).run()?.error()?;
            view::absent(&other.netns, "eth0")
        }),
        row("A8", "ADD", "an address outside the ranges is an error", |bench| {
            let pod = bench.pod("a")?;
            bench.call("ADD", &pod).env("CNI_ARGS", "IgnoreUnknown=1;IP=192.0.2.9").run()?.error().map(drop)
        }),
        row(
            "A8",
            "ADD",
            "containerd's keys with upper-case letters, and null for any list or map, are tolerated",
            |bench| {
                let pod = bench.pod("a")?;
                let mut config = bench.config_with("runtimeConfig", &upper_case());
                config["capabilities"] =
                    json!({"portMappings": true, "dns": true, "ips": true, "mac": true, "aliases": true});
                bench.call("ADD", &pod).config(&config).run()?.result()?;
                bench.call("DEL", &pod).config(&config).run()?.silence()
            },
        ),
        row("A8", "ADD", "runtimeConfig, args and capabilities may be null", |bench| {
            let pod = bench.pod("a")?;
            let mut config = bench.config();
            for key in ["runtimeConfig", "args", "capabilities"] {
                config[key] = Value::Null;
            }
            bench.call("ADD", &pod).config(&config).run()?.result().map(drop)
        }),
    ]
}

/// A row about an ADD that has to succeed with each of these.
fn accepted(what: &str, values: &'static [&'static str]) -> Row {
    row("A8", "ADD", format!("accepts {what}"), move |bench| {
        values.iter().enumerate().try_for_each(|(number, value)| {
            let pod = bench.pod(&format!("a{number}"))?;
            let answer = bench.call("ADD", &pod).env("CNI_ARGS", value).run()?;
            case(format!("{value:?}"), answer.result().map(drop))
        })
    })
}

/// The configuration with the value of a capability that it declares.
fn capable(bench: &Bench<'_>, capability: &str, value: &Value) -> Value {
    let mut config = bench.config();
    config["capabilities"] = json!({ capability: true });
    config["runtimeConfig"] = json!({ capability: value });
    config
}

fn with_result(mut config: Value, told: &Value) -> Value {
    config["prevResult"] = told.clone();
    config
}

/// What go-cni's structures without JSON tags become.
fn upper_case() -> Value {
    json!({
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
        "dns": {"Servers": null, "Searches": null, "Options": null},
        "ips": null,
        "ipRanges": null,
        "aliases": null,
        "mac": "",
        "io.kubernetes.cri.pod-annotations": {"a": "b"},
    })
}

/// ADD that asks for addresses in one way or several, and what it has to give.
fn asked(bench: &mut Bench<'_>, arguments: &str, args: &[&str], capability: Option<&str>, wanted: &str) -> Check {
    let pod = bench.pod("a")?;
    let mut config = match capability {
        Some(address) => capable(bench, "ips", &json!([address])),
        None => bench.config(),
    };
    if !args.is_empty() {
        config["args"] = json!({"cni": {"ips": args}});
    }
    has_address(
        &bench
            .call("ADD", &pod)
            .config(&config)
            .env("CNI_ARGS", format!("{arguments};IgnoreUnknown=1").trim_start_matches(';')),
        wanted,
    )
}

fn has_address(call: &Call<'_>, wanted: &str) -> Check {
    let told = call.run()?.result()?;
    let address = result::address(&told)?.to_string();
    same("address", &address.as_str(), &wanted)
}

fn has_mac(pod: &Pod, call: &Call<'_>) -> Result<Value, Miss> {
    let told = call.run()?.result()?;
    let device = view::device(&pod.netns, "eth0")?.unwrap_or_default();
    same_json("MAC", &device["address"], &json!(MAC))?;
    let mut entries = told["interfaces"].as_array().into_iter().flatten();
    let entry = entries.find(|entry| entry["name"] == "eth0").unwrap_or(&Value::Null);
    ensure(entry["mac"] == MAC, format!("MAC {MAC} in the result"), &told)?;
    Ok(told)
}
