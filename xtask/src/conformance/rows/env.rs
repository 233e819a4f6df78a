//! A1: the environment.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{
    super::{
        bench::Bench,
        outcome::{Check, case, ensure, not_applicable},
    },
    Row, row,
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("R-ENV-1", "ADD", "all missing variables are named together, with code 4", |bench| {
            missing(bench, "ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
        }),
        row("R-ENV-1", "CHECK", "all missing variables are named together, with code 4", |bench| {
            missing(bench, "CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
        }),
        row("R-ENV-1", "DEL", "all missing variables are named together, with code 4", |bench| {
            missing(bench, "DEL", &["CNI_CONTAINERID", "CNI_IFNAME"])
        }),
        row("R-ENV-1", "ADD", "a variable that is empty is missing", |bench| {
            let pod = bench.pod("a")?;
            ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].into_iter().try_for_each(|variable| {
                let answer = bench.call("ADD", &pod).env(variable, "").run()?;
                let error = case(variable, answer.error_code(4))?;
                let named = error["msg"].as_str().is_some_and(|message| message.contains(variable));
                ensure(named, format!("a message that names {variable}"), &answer)
            })
        }),
        row("R-ENV-1", "ADD", "CNI_PATH may be absent where nothing is delegated", without_path),
        row("R-ENV-1", "any", "a CNI_COMMAND that is none has code 4, other cases of a letter too", |bench| {
            let pod = bench.pod("a")?;
            ["NOPE", "add", " ADD", "ADD "]
                .into_iter()
                .try_for_each(|command| case(command, bench.call(command, &pod).run()?.error_code(4).map(drop)))
        }),
        row("R-ENV-1", "none", "without CNI_COMMAND: about text on stderr, status 0, nothing on stdout", |bench| {
            let answer = bench.command("").without("CNI_COMMAND").run()?;
            answer.silence()?;
            ensure(!answer.stderr.trim().is_empty(), "something about the plugin on stderr", &answer)
        }),
    ];
    rows.extend(["ADD", "CHECK", "DEL"].map(|command| {
        row("R-ENV-1", command, "a container id with characters that are not allowed has code 4", move |bench| {
            refused(bench, command, "CNI_CONTAINERID", &["../../etc", ".hidden", "a/b", "a b", "a\n", "ä", "-a"])
        })
    }));
    rows.extend(["ADD", "CHECK", "DEL"].map(|command| {
        row("R-ENV-1", command, "an interface name that the kernel would not take has code 4", move |bench| {
            refused(bench, command, "CNI_IFNAME", &["1234567890123456", ".", "..", "a/b", "a:b", "a b", "a\tb"])
        })
    }));
    rows.extend(["ADD", "CHECK", "DEL"].map(|command| {
        row("R-ENV-2", command, "the environment is judged before stdin is read", move |bench| {
            let pod = bench.pod("a")?;
            let answer = bench.call(command, &pod).without("CNI_IFNAME").open_input().run()?;
            answer.error_code(4)?;
            let limit = Duration::from_secs(1);
            ensure(answer.took < limit, "an answer within 1 s", format!("{:.1?}", answer.took))
        })
    }));
    rows.extend([
        row("R-ENV-3", "ADD", "the host's own namespace is refused with code 8", |bench| {
            let pod = bench.pod("a")?;
            bench.call("ADD", &pod).env("CNI_NETNS", &bench.host_path).run()?.error_code(8).map(drop)
        }),
        row("R-ENV-3", "ADD", "where the host's own namespace is refused, nothing was done to the host", |bench| {
            let before = bench.warm()?;
            let pod = bench.pod("a")?;
            bench.call("ADD", &pod).env("CNI_NETNS", &bench.host_path).run()?;
            bench.unchanged_since(&before)
        }),
        row("R-ENV-4", "ADD", "what is no network namespace is refused, and nothing is left of it", |bench| {
            bench.pool(1);
            let before = bench.warm()?;
            let pod = bench.pod("a")?;
            not_namespaces(bench)?.iter().try_for_each(|path| {
                let answer = bench.call("ADD", &pod).env("CNI_NETNS", path).run()?;
                case(path.display(), answer.error().map(drop))
            })?;
            bench.unchanged_since(&before)?;
            bench.free_addresses(1)
        }),
        row("R-ENV-4", "CHECK", "what is no network namespace is refused", |bench| {
            let (pod, result) = bench.attached("a")?;
            case("with its own namespace", bench.check(&pod, &result)?.success())?;
            not_namespaces(bench)?.iter().try_for_each(|path| {
                // As if ADD had been told this path.
                let told = result.to_string().replace(&*pod.path.to_string_lossy(), &path.to_string_lossy());
                let told = serde_json::from_str(&told).map_err(anyhow::Error::from)?;
                let call = bench.call("CHECK", &pod).env("CNI_NETNS", path);
                let answer = call.config(&bench.config_with("prevResult", &told)).run()?;
                case(path.display(), answer.error().map(drop))
            })
        }),
    ]);
    rows
}

fn missing(bench: &mut Bench<'_>, command: &str, variables: &[&str]) -> Check {
    let answer = bench.command(command).run()?;
    let error = answer.error_code(4)?;
    let message = error["msg"].as_str().unwrap_or_default();
    let all = variables.iter().all(|variable| message.contains(variable));
    ensure(all, format!("a message with {}", variables.join(", ")), &answer)
}

fn without_path(bench: &mut Bench<'_>) -> Check {
    let pod = bench.pod("a")?;
    // A program that executes nothing of CNI_PATH can do without.
    let elsewhere = bench.call("ADD", &pod).env("CNI_PATH", "/nonexistent").run()?;
    if elsewhere.status != Some(0) {
        return Err(not_applicable("the plugin delegates to others along CNI_PATH"));
    }
    bench.del(&pod)?;
    bench.call("ADD", &pod).without("CNI_PATH").run()?.result().map(drop)
}

fn refused(bench: &mut Bench<'_>, command: &str, variable: &str, values: &[&str]) -> Check {
    let pod = bench.pod("a")?;
    values.iter().try_for_each(|value| {
        let answer = bench.call(command, &pod).env(variable, value).run()?;
        case(format!("{value:?}"), answer.error_code(4).map(drop))
    })
}

/// Paths that are there or not, but lead to no network namespace.
fn not_namespaces(bench: &Bench<'_>) -> Result<[PathBuf; 6]> {
    let [file, directory, fifo] = ["file", "directory", "fifo"].map(|name| bench.file(name));
    fs::write(&file, "")?;
    fs::create_dir(&directory)?;
    mkfifo(&fifo, Mode::S_IRWXU)?;
    Ok([file, directory, fifo, bench.file("missing"), "/proc/self/ns/mnt".into(), "/dev/null".into()])
}
