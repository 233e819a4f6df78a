//! A0, A3: what goes to stdout and stderr, and what the plugin takes over from its runtime.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Result;
use serde_json::json;

use super::{
    super::{
        answer::Answer,
        bench::Bench,
        outcome::{Check, Miss, ensure, same_json},
    },
    Row, row,
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("A3", "ADD", "status 0 and exactly one JSON document, in the version asked for", |bench| {
            let (_, result) = bench.attached("a")?;
            same_json("cniVersion", &result["cniVersion"], &json!(bench.version))
        }),
        row("A3", "DEL", "status 0 and nothing on stdout", |bench| {
            let (pod, _) = bench.attached("a")?;
            bench.call("DEL", &pod).run()?.silence()
        }),
        row("A3", "CHECK", "status 0 and nothing on stdout", |bench| {
            let (pod, result) = bench.attached("a")?;
            bench.check(&pod, &result)?.silence()
        }),
        row("A3", "GC", "status 0 and nothing on stdout", |bench| {
            bench.version = "1.1.0";
            bench.command("GC").config(&bench.config_with("cni.dev/valid-attachments", &json!([]))).run()?.silence()
        }),
        row("A3", "STATUS", "status 0 and nothing on stdout", |bench| {
            bench.version = "1.1.0";
            bench.command("STATUS").run()?.silence()
        }),
        row("A3", "any", "an error tells its cniVersion", |bench| {
            let error = failed_add(bench)?.error()?;
            same_json("cniVersion", &error["cniVersion"], &json!(bench.version))
        }),
        row("A0.2", "ADD", "an error is one JSON document on stdout, whatever stderr says", |bench| {
            failed_add(bench)?.error().map(drop)
        }),
        row("A0.2", "CHECK", "an error is one JSON document on stdout, whatever stderr says", |bench| {
            let pod = bench.pod("a")?;
            bench.call("CHECK", &pod).run()?.error().map(drop)
        }),
    ];
    rows.extend(["DEL", "GC", "STATUS"].map(|command| {
        row("A0.2", command, "an error is one JSON document on stdout, whatever stderr says", move |bench| {
            let pod = bench.pod("a")?;
            bench.call(command, &pod).text("nonsense").run()?.error().map(drop)
        })
    }));
    rows.extend([
        row("A0.3", "ADD", "nothing holds stdout or stderr open, and no process is left", |bench| {
            let pod = bench.pod("a")?;
            let answer = bench.call("ADD", &pod).run()?;
            answer.result()?;
            left_alone(bench, &[&pod.path, &bench.host_path], &answer)
        }),
        row("A0.3", "DEL", "nothing holds stdout or stderr open, and no process is left", |bench| {
            let (pod, _) = bench.attached("a")?;
            let answer = bench.call("DEL", &pod).run()?;
            answer.success()?;
            left_alone(bench, &[&pod.path, &bench.host_path], &answer)
        }),
        row("A0.11", "ADD", "capabilities, which libcni does not take out, is tolerated", |bench| {
            let pod = bench.pod("a")?;
            let config = bench.config_with(
                "capabilities",
                &json!({"portMappings": true, "bandwidth": true, "io.kubernetes.cri.pod-annotations": true}),
            );
            bench.call("ADD", &pod).config(&config).run()?.result().map(drop)
        }),
        row("A0.12", "ADD", "the runtime's environment changes nothing of the answer", |bench| {
            let pod = bench.pod("a")?;
            let call = INHERITED.iter().fold(bench.call("ADD", &pod), |call, (name, value)| call.env(name, value));
            call.run()?.result()?;
            let call = INHERITED.iter().fold(bench.call("DEL", &pod), |call, (name, value)| call.env(name, value));
            call.run()?.silence()
        }),
        row("A0.12", "VERSION", "the runtime's environment changes nothing of the answer", |bench| {
            let call = INHERITED.iter().fold(bench.command("VERSION"), |call, (name, value)| call.env(name, value));
            let (seen, expected) = (call.run()?.document()?, bench.command("VERSION").run()?.document()?);
            same_json("the answer", &seen, &expected)
        }),
    ]);
    rows
}

/// What a runtime's unit may have in its environment.
const INHERITED: [(&str, &str); 10] = [
    ("HTTP_PROXY", "http://192.0.2.1:3128"),
    ("NO_PROXY", "*"),
    ("RUST_LOG", "trace"),
    ("RUST_BACKTRACE", "full"),
    ("NOTIFY_SOCKET", "/run/systemd/notify"),
    ("LISTEN_FDS", "3"),
    ("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("BAGGAGE", "k=v"),
    ("LANG", "de_DE.UTF-8"),
    ("HOME", "/nonexistent"),
];

/// An ADD into a namespace that is not there.
fn failed_add(bench: &mut Bench<'_>) -> Result<Answer, Miss> {
    let pod = bench.pod("a")?;
    Ok(bench.call("ADD", &pod).env("CNI_NETNS", bench.file("missing")).run()?)
}

fn left_alone(bench: &Bench<'_>, namespaces: &[&Path], answer: &Answer) -> Check {
    ensure(!answer.held_open, "stdout and stderr closed at the plugin's end", "something holds one of them open")?;
    for namespace in namespaces {
        let processes = processes_in(namespace)?;
        let expected = format!("no process of {} left", bench.plugin.name);
        ensure(processes.is_empty(), expected, processes.join(", "))?;
    }
    Ok(())
}

/// The processes in a network namespace.
fn processes_in(namespace: &Path) -> Result<Vec<String>> {
    let wanted = fs::metadata(namespace)?.ino();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        if fs::metadata(process.join("ns/net")).is_ok_and(|netns| netns.ino() == wanted) {
            found.push(fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned());
        }
    }
    Ok(found)
}
