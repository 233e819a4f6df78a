//! R-DEL-6, R-ADD-3: commands that were killed, failed, or are still at work.

use std::time::Duration;

use super::{
    super::{
        bench::{Bench, ip},
        outcome::{Check, Miss, case, same},
        packet::reach,
        view,
    },
    Row, result, row,
};

/// At how many moments of a command it is killed.
const MOMENTS: u32 = 10;

/// Milliseconds after which a host's first ADD is killed, which may have the host itself to prepare.
const FIRST: [u64; 6] = [1, 5, 10, 20, 40, 80];

pub(super) fn rows() -> Vec<Row> {
    let first = FIRST.map(|milliseconds| {
        let promise = format!("leaves nothing of a host's first ADD that was killed after {milliseconds} ms");
        row("R-ADD-3", "DEL", promise, move |bench| first_killed(bench, Duration::from_millis(milliseconds)))
    });
    let mut rows = vec![
        row("R-DEL-6", "DEL", "succeeds right after an ADD that failed, and leaves nothing", |bench| {
            bench.pool(1);
            let before = bench.warm()?;
            let pod = bench.pod("a")?;
            ip(&pod.netns, "link add eth0 type bridge")?;
            bench.call("ADD", &pod).run()?.error()?;
            bench.del(&pod)?;
            bench.unchanged_since(&before)?;
            bench.free_addresses(1)
        }),
        row(
            "R-ADD-3",
            "DEL",
            format!("leaves nothing of an ADD that was killed at {MOMENTS} different moments"),
            |bench| killed(bench, "ADD"),
        ),
        row("R-DEL-1", "DEL", format!("completes a DEL that was killed at {MOMENTS} different moments"), |bench| {
            killed(bench, "DEL")
        }),
        row(
            "R-DEL-6",
            "DEL",
            "a DEL that comes while the ADD is at work, and another after it, leave nothing",
            in_flight,
        ),
    ];
    rows.extend(first);
    rows
}

fn first_killed(bench: &mut Bench<'_>, delay: Duration) -> Check {
    bench.pool(1);
    let before = view::veths(&bench.host)?;
    let pod = bench.pod("a")?;
    bench.call("ADD", &pod).start()?.kill_after(delay)?;
    bench.del(&pod)?;
    view::absent(&pod.netns, "eth0")?;
    same("veth devices on the host:", &view::veths(&bench.host)?, &before)?;
    // The host is as good as any other.
    let (pod, told) = bench.attached("b")?;
    reach(&bench.host, &pod.netns, result::address(&told)?)?;
    bench.del(&pod)?;
    bench.free_addresses(1)
}

/// Kills a command at several moments of the time that it takes. Whatever it left, a DEL removes.
fn killed(bench: &mut Bench<'_>, command: &str) -> Check {
    bench.pool(2);
    let before = bench.warm()?;
    let usual = usual_time(bench, command)?;
    for moment in 0..MOMENTS {
        let pod = bench.pod(&format!("a{moment}"))?;
        if command == "DEL" {
            bench.add(&pod)?;
        }
        bench.call(command, &pod).start()?.kill_after(usual * moment / (MOMENTS - 1))?;
        let name = format!("{command} killed after {:.1?}", usual * moment / (MOMENTS - 1));
        case(&name, bench.del(&pod))?;
        case(&name, view::absent(&pod.netns, "eth0"))?;
        case(&name, bench.unchanged_since(&before))?;
    }
    bench.free_addresses(2)
}

fn usual_time(bench: &mut Bench<'_>, command: &str) -> Result<Duration, Miss> {
    let pod = bench.pod("usual")?;
    let add = bench.call("ADD", &pod).run()?;
    add.success()?;
    let del = bench.call("DEL", &pod).run()?;
    del.success()?;
    Ok(if command == "ADD" { add.took } else { del.took })
}

fn in_flight(bench: &mut Bench<'_>) -> Check {
    bench.pool(2);
    let before = bench.warm()?;
    let usual = usual_time(bench, "ADD")?;
    for moment in 0..MOMENTS {
        let pod = bench.pod(&format!("a{moment}"))?;
        let add = bench.call("ADD", &pod).start()?;
        std::thread::sleep(usual * moment / MOMENTS);
        let del = bench.call("DEL", &pod).run()?;
        let name = format!("DEL {:.1?} after the start of ADD", usual * moment / MOMENTS);
        case(&name, del.silence())?;
        // It may have succeeded before the DEL or after it.
        add.finish()?;
        case(&name, bench.del(&pod))?;
        case(&name, view::absent(&pod.netns, "eth0"))?;
        case(&name, bench.unchanged_since(&before))?;
    }
    bench.free_addresses(2)
}
