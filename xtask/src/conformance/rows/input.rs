//! A2: the configuration on standard input.

use serde_json::{Value, json};

use super::{
    super::{
        answer::Answer,
        bench::{Bench, Pod},
        outcome::{Check, Miss, case, ensure, same_json},
    },
    Row, row,
};

/// Every command that reads a configuration, with the oldest version that knows it.
const COMMANDS: [(&str, &str); 5] =
    [("ADD", "0.1.0"), ("DEL", "0.1.0"), ("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (command, since) in COMMANDS {
        rows.extend([
            row("R-IN-1", command, "what is not a JSON object has code 6", move |bench| {
                let pod = bench.pod("a")?;
                ["", "{", "nonsense", "[]", "{\"name\":}"].into_iter().try_for_each(|text| {
                    let answer = bench.call(command, &pod).text(text).run()?;
                    case(format!("{text:?}"), answer.error_code(6).map(drop))
                })
            }),
            row(
                "R-IN-1",
                command,
                "a network without a name, or with one that is not allowed, has code 7",
                move |bench| {
                    let names = [json!(null), json!(""), json!("a/b"), json!("../x"), json!(".x"), json!("a b")];
                    each(bench, command, "name", &names, 7)
                },
            ),
        ]);
        rows.extend((since > "0.1.0").then(|| {
            row("R-IN-3", command, "a cniVersion that is no version has code 6", move |bench| {
                each(bench, command, "cniVersion", &[json!("adsfsadf")], 6)
            })
        }));
        let older: Vec<_> = ["0.3.1", "0.4.0", "1.0.0"].into_iter().filter(|version| *version < since).collect();
        rows.extend((!older.is_empty() && since > "0.1.0").then(|| {
            row("R-IN-4", command, format!("a cniVersion before {since} has code 1"), move |bench| {
                let older: Vec<_> = older.iter().map(|version| json!(version)).collect();
                each(bench, command, "cniVersion", &older, 1)
            })
        }));
    }
    rows.extend([
        row("R-IN-1", "ADD", "a stdin that cannot be read has code 5", |bench| {
            let pod = bench.pod("a")?;
            bench.call("ADD", &pod).unreadable_input().run()?.error_code(5).map(drop)
        }),
        row("R-IN-2", "ADD", "no cniVersion, or an empty one, is 0.1.0", |bench| {
            [json!(null), json!("")].into_iter().enumerate().try_for_each(|(number, version)| {
                let pod = bench.pod(&format!("a{number}"))?;
                let answer = with(bench, "ADD", &pod, "cniVersion", &version)?;
                let result = case(&version, answer.result())?;
                same_json("cniVersion", &result["cniVersion"], &json!("0.1.0"))?;
                ensure(result["ip4"]["ip"].is_string(), "ip4.ip, as 0.1.0 has it", &result)
            })
        }),
        row(
            "R-IN-2",
            "ADD",
            "a cniVersion that is not served has code 1, and details name it and the served ones",
            |bench| {
                let pod = bench.pod("a")?;
                ["9.9.9", "1.0", " 1.0.0", "adsfsadf"].into_iter().try_for_each(|version| {
                    let answer = with(bench, "ADD", &pod, "cniVersion", &json!(version))?;
                    let error = case(format!("{version:?}"), answer.error_code(1))?;
                    let details = error["details"].as_str().unwrap_or_default();
                    let named = details.contains(version) && details.contains(bench.version);
                    ensure(named, "details with the configuration's version and those served", &answer)
                })
            },
        ),
        row("R-IN-5", "ADD", "unknown keys are tolerated, those of cni.dev/ too", |bench| {
            let pod = bench.pod("a")?;
            let mut config = bench.config();
            config["unknown"] = json!({"deep": [1, null]});
            config["cni.dev/unknown"] = json!("x");
            config["args"] = json!({"labels": [{"key": "a", "value": "b"}]});
            bench.call("ADD", &pod).config(&config).run()?.result().map(drop)
        }),
        row(
            "R-IN-6",
            "CHECK",
            "a prevResult without a cniVersion of its own is read as the configuration's",
            |bench| {
                let (pod, mut result) = bench.attached("a")?;
                if let Some(result) = result.as_object_mut() {
                    result.remove("cniVersion");
                }
                bench.check(&pod, &result)?.silence()
            },
        ),
        row("R-IN-7", "ADD", "a prefix that is none has code 7, and nothing is left", |bench| {
            let pod = bench.pod("a")?;
            let before = bench.warm()?;
            bench.ranges = json!([[{"subnet": "10.77.0.0/33"}]]);
            let answer = bench.call("ADD", &pod).run()?;
            let judged = answer.error_code(7);
            bench.unchanged_since(&before)?;
            judged.map(drop)
        }),
        row("R-IN-7", "ADD", "an MTU that is no number has code 7 and a message that names it", |bench| {
            let pod = bench.pod("a")?;
            let answer = with(bench, "ADD", &pod, "mtu", &json!("big"))?;
            let error = answer.error_code(7)?;
            let named = error["msg"].as_str().is_some_and(|message| message.contains("mtu"));
            ensure(named, "a message that names mtu", &answer)
        }),
    ]);
    rows
}

/// A command with one key of the configuration set to something else.
fn with(bench: &Bench<'_>, command: &str, pod: &Pod, key: &str, value: &Value) -> Result<Answer, Miss> {
    let mut config = bench.config();
    if let Some(keys) = config.as_object_mut() {
        keys.remove(key);
        if !value.is_null() {
            keys.insert(key.to_owned(), value.clone());
        }
    }
    Ok(bench.call(command, pod).config(&config).run()?)
}

/// Each value of a key has this code.
fn each(bench: &mut Bench<'_>, command: &str, key: &str, values: &[Value], code: u64) -> Check {
    if ["GC", "STATUS"].contains(&command) {
        bench.version = "1.1.0";
    }
    let pod = bench.pod("a")?;
    values.iter().try_for_each(|value| {
        let answer = with(bench, command, &pod, key, value)?;
        case(format!("{key} {value}"), answer.error_code(code).map(drop))
    })
}
