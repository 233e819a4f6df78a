//! A7: STATUS.

use std::time::Duration;

use serde_json::json;

use super::{
    super::{
        answer::Answer,
        bench::Bench,
        outcome::{Miss, ensure},
        view,
    },
    Row, row,
};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("A7", "STATUS", "passes where an ADD would, before the first one and after it", |bench| {
            status(bench)?.silence()?;
            let (_pod, _) = bench.attached("a")?;
            status(bench)?.silence()
        }),
        row("A7", "STATUS", "ends within 1 s", |bench| {
            let answer = status(bench)?;
            answer.success()?;
            ensure(answer.took < Duration::from_secs(1), "an end within 1 s", format!("{:.1?}", answer.took))
        }),
        row("A7", "STATUS", "changes nothing on the host", |bench| {
            let before = view::settled(&bench.host)?;
            status(bench)?.success()?;
            bench.unchanged_since(&before)
        }),
        row("A7", "STATUS", "has code 50 while every address is taken, and passes again once one is free", |bench| {
            bench.pool(2);
            let (first, _) = bench.attached("a")?;
            status(bench)?.silence()?;
            let (_second, _) = bench.attached("b")?;
            status(bench)?.error_code(50)?;
            bench.del(&first)?;
            status(bench)?.silence()
        }),
        row("A7", "STATUS", "a configuration that ADD would refuse is an error", |bench| {
            bench.ranges = json!([[{"subnet": "10.77.0.0/33"}]]);
            status(bench)?.error().map(drop)
        }),
    ]
}

fn status(bench: &Bench<'_>) -> Result<Answer, Miss> {
    let mut config = bench.config();
    // The version that brought STATUS, whether the plugin lists it or not.
    config["cniVersion"] = json!("1.1.0");
    Ok(bench.command("STATUS").config(&config).run()?)
}
