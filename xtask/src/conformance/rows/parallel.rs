//! A9: commands at the same time.

use std::collections::BTreeSet;

use super::{
    super::{
        answer::Answer,
        bench::{Bench, Pod},
        outcome::{Check, Miss, case, same},
        plugin::{CNI_PATH, Call, Running},
        view,
    },
    Row, result, row,
};

/// How many containers come at once.
const MANY: usize = 20;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "A9",
            "ADD",
            format!("{MANY} at once all succeed, each with an address of its own, from nothing"),
            |bench| {
                let pods = sandboxes(bench, "a")?;
                add_all(bench, &pods)
            },
        ),
        row("A9", "DEL", format!("{MANY} at once leave nothing, and every address is free again"), |bench| {
            bench.pool(20);
            let before = bench.warm()?;
            let pods = sandboxes(bench, "a")?;
            add_all(bench, &pods)?;
            all(pods.iter().map(|pod| bench.call("DEL", pod)), Answer::silence)?;
            bench.unchanged_since(&before)?;
            let pods = sandboxes(bench, "b")?;
            add_all(bench, &pods)
        }),
        row("A9", "DEL", "some come while others go", |bench| {
            let old = sandboxes(bench, "a")?;
            add_all(bench, &old)?;
            let new = sandboxes(bench, "b")?;
            let calls = old.iter().zip(&new).flat_map(|(old, new)| [bench.call("DEL", old), bench.call("ADD", new)]);
            all(calls, Answer::success)?;
            for pod in &new {
                same("addresses of a new container", &view::addresses(&pod.netns, "eth0")?.len(), &1)?;
            }
            Ok(())
        }),
        row("A9", "DEL", "two at once for one container both succeed", |bench| {
            bench.pool(2);
            let before = bench.warm()?;
            for number in 0..5 {
                let (pod, _) = bench.attached(&format!("a{number}"))?;
                all([bench.call("DEL", &pod), bench.call("DEL", &pod)], Answer::silence)?;
            }
            bench.unchanged_since(&before)?;
            bench.free_addresses(2)
        }),
        row("A9", "ADD", "works while another plugin brings the loopback device up, as in containerd", |bench| {
            let pod = bench.pod("a")?;
            let loopback = format!("{CNI_PATH}/loopback");
            let config = serde_json::json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"});
            let lo = Call::new(loopback.as_ref(), &bench.host, "ADD").env("CNI_CONTAINERID", &pod.id);
            let lo = lo.env("CNI_NETNS", &pod.path).env("CNI_IFNAME", "lo").config(&config);
            all([lo, bench.call("ADD", &pod)], Answer::success)?;
            same("addresses of the container", &view::addresses(&pod.netns, "eth0")?.len(), &1)
        }),
    ]
}

fn sandboxes(bench: &mut Bench<'_>, prefix: &str) -> Result<Vec<Pod>, Miss> {
    (0..MANY).map(|number| Ok(bench.pod(&format!("{prefix}{number}"))?)).collect()
}

fn add_all(bench: &Bench<'_>, pods: &[Pod]) -> Check {
    let mut addresses = BTreeSet::new();
    all(pods.iter().map(|pod| bench.call("ADD", pod)), |answer| {
        addresses.insert(result::address(&answer.result()?)?);
        Ok(())
    })?;
    same("number of different addresses", &addresses.len(), &pods.len())
}

/// Starts every command before it waits for the first one.
fn all<'a>(calls: impl IntoIterator<Item = Call<'a>>, mut judge: impl FnMut(&Answer) -> Check) -> Check {
    let running: Vec<Running> = calls.into_iter().map(|call| call.start()).collect::<Result<_, _>>()?;
    // Every one is waited for, whatever came of those before it.
    let answers: Vec<_> = running.into_iter().map(Running::finish).collect();
    answers
        .into_iter()
        .enumerate()
        .try_for_each(|(number, answer)| case(format!("number {}", number + 1), judge(&answer?)))
}
