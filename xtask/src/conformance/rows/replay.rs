//! Calls that were recorded from containerd, cnitool and libcni, replayed with names and paths of the suite.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    super::{
        answer::Answer,
        bench::{Bench, Pod},
        outcome::{Miss, case, same, same_json},
        plugin::{CNI_PATH, Call, VERSIONS},
        view,
    },
    Row, row,
};
use crate::command;

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<_> = [
        ("containerd 1.6", "containerd-1.6-add", "containerd-1.6-del"),
        ("containerd 2.4", "containerd-2.4-add", "containerd-2.4-del"),
        ("containerd 1.6, late,", "containerd-1.6-add", "containerd-1.6-del-late"),
    ]
    .into_iter()
    .map(|(runtime, add, del)| {
        row("A9", "ADD", format!("the recorded ADD and DEL of {runtime} are served, and leave nothing"), move |bench| {
            let before = bench.warm()?;
            let pod = bench.pod("a")?;
            let (answer, version) = replay(bench, &pod, add, &Value::Null)?;
            let told = case(add, answer.result())?;
            same_json("cniVersion", &told["cniVersion"], &json!(version))?;
            case(del, replay(bench, &pod, del, &told)?.0.silence())?;
            pod.end()?;
            bench.unchanged_since(&before)
        })
    })
    .collect();
    rows.extend([
        row("A6", "CHECK", "the recorded CHECK of cnitool is served", |bench| {
            let pod = bench.pod("a")?;
            let told = replay(bench, &pod, "containerd-2.4-add", &Value::Null)?.0.result()?;
            // cnitool has a container id of its own.
            let recorded = Recording::read("cnitool-check")?;
            let id = Recording::read("containerd-2.4-add")?.variable("CNI_CONTAINERID");
            let call = recorded.call(bench, &pod, &told)?.env("CNI_CONTAINERID", id);
            call.run()?.silence()
        }),
        row("A7", "STATUS", "the recorded STATUS of containerd 2.4 is served", |bench| {
            let pod = bench.pod("a")?;
            replay(bench, &pod, "containerd-2.4-status", &Value::Null)?.0.silence()
        }),
        row("A7", "GC", "the recorded GC of libcni keeps containerd's container and removes another", |bench| {
            let pod = bench.pod("a")?;
            let (other, _) = bench.attached("b")?;
            replay(bench, &pod, "containerd-2.4-add", &Value::Null)?.0.result()?;
            replay(bench, &pod, "libcni-gc", &Value::Null)?.0.silence()?;
            let left = [&pod, &other].map(|pod| view::device(&pod.netns, "eth0").map(|device| device.is_some()));
            let [kept, removed] = left;
            same("whether eth0 of each is there:", &(kept?, removed?), &(true, false))
        }),
    ]);
    rows
}

/// Executes a recorded command; also gives the version that it was told in.
fn replay(bench: &mut Bench<'_>, pod: &Pod, name: &str, told: &Value) -> Result<(Answer, &'static str), Miss> {
    let recorded = Recording::read(name)?;
    let version = VERSIONS.into_iter().find(|version| recorded.config["cniVersion"] == *version);
    let version = version.with_context(|| format!("{name} has no version"))?;
    if recorded.config["ipam"].to_string().contains("::/") {
        bench.dual_stack();
    }
    if recorded.variable("CNI_COMMAND") == "ADD" {
        bench.need(version)?;
    }
    Ok((recorded.call(bench, pod, told)?.run()?, version))
}

/// Environment and standard input of a command.
struct Recording {
    environment: Vec<(String, String)>,
    config: Value,
}

impl Recording {
    fn read(name: &str) -> Result<Self> {
        let file = command::root().join(format!("minicni-user/tests/data/cni/calls/{name}.txt"));
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("read {}", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let (environment, config) = text.split_once("\n\n").context("no empty line before the configuration")?;
        let pairs = environment.lines().map(|line| {
            let (name, value) = line.split_once('=').with_context(|| format!("{line} is no variable"))?;
            Ok((name.to_owned(), value.to_owned()))
        });
        Ok(Self { environment: pairs.collect::<Result<_>>()?, config: serde_json::from_str(config)? })
    }

    fn variable(&self, name: &str) -> String {
        let found = self.environment.iter().find(|(variable, _)| variable == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The command, with what is of the recorded machine replaced: paths, pools, names of plugins, the result.
    fn call<'a>(&self, bench: &'a Bench<'_>, pod: &Pod, told: &Value) -> Result<Call<'a>> {
        let mut config = self.config.clone();
        let ours = bench.config();
        let ours = ours.as_object().context("a configuration is an object")?;
        for (key, value) in ours.iter().filter(|(key, _)| *key != "cniVersion") {
            config[key] = value.clone();
        }
        if config["isDefaultGateway"] == true
            && let Some(ipam) = config["ipam"].as_object_mut()
        {
            // As it was recorded; a plugin that knows the key makes the default route by itself.
            ipam.remove("routes");
        }
        if !config["prevResult"].is_null() {
            config["prevResult"] = told.clone();
        }
        let call = self.environment.iter().fold(bench.command(""), |call, (name, value)| call.env(name, value));
        let call = if self.variable("CNI_NETNS").is_empty() { call } else { call.env("CNI_NETNS", &pod.path) };
        Ok(call.env("CNI_PATH", CNI_PATH).config(&config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_variables_an_empty_line_and_a_configuration() {
        let recording = Recording::parse("CNI_ARGS=a=b;c=d\nCNI_NETNS=\n\n{\"name\":\"x\"}\n").unwrap();
        assert_eq!(recording.variable("CNI_ARGS"), "a=b;c=d");
        assert_eq!(recording.variable("CNI_NETNS"), "");
        assert_eq!(recording.config["name"], "x");
        assert!(Recording::parse("CNI_ARGS=\n{}").is_err());
        assert!(Recording::parse("nonsense\n\n{}").is_err());
    }
}
