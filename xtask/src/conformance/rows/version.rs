//! A0.9, A3: VERSION.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{
        bench::Bench,
        outcome::{Check, Miss, ensure, same_json},
        plugin::{Call, VERSIONS},
    },
    Row, row,
};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("A3", "VERSION", "one document, with cniVersion and supportedVersions", |bench| {
            judged(&bench.command("VERSION")).map(drop)
        }),
        row("A3", "VERSION", "every version from 0.1.0 to 1.1.0 is listed", |bench| {
            same_json("supportedVersions", &judged(&bench.command("VERSION"))?["supportedVersions"], &json!(VERSIONS))
        }),
        row("A3", "VERSION", "cniVersion is that of the input, or the newest served", echo),
        row("A0.9", "VERSION", "answers within 1 s while stdin stays open and empty", |bench| {
            let answer = bench.command("VERSION").open_input().run()?;
            answer.document()?;
            ensure(answer.took < Duration::from_secs(1), "an answer within 1 s", format!("{:.1?}", answer.took))
        }),
        row("A0.9", "VERSION", "does not look at libcni's dummies in the other variables", |bench| {
            let call = bench.command("VERSION").env("CNI_CONTAINERID", "").env("CNI_NETNS", "dummy");
            judged(&call.env("CNI_IFNAME", "dummy").env("CNI_PATH", "dummy")).map(drop)
        }),
        row("A0.9", "VERSION", "needs no variable but CNI_COMMAND", |bench| {
            judged(&bench.command("VERSION").without("CNI_PATH")).map(drop)
        }),
        row("A0.9", "VERSION", "what stdin says does not matter: nothing, nonsense, no name", |bench| {
            ["", "nonsense", "[]", "{}", r#"{"cniVersion":"9.9.9"}"#]
                .iter()
                .try_for_each(|text| judged(&bench.command("VERSION").text(text)).map(drop))
        }),
    ]
}

fn judged(call: &Call<'_>) -> Result<Value, Miss> {
    let document = call.run()?.document()?;
    let versions = document["supportedVersions"].as_array();
    let complete = document["cniVersion"].as_str().is_some_and(|version| !version.is_empty())
        && versions.is_some_and(|versions| !versions.is_empty() && versions.iter().all(Value::is_string));
    ensure(complete, "cniVersion and supportedVersions, neither of them empty", &document)?;
    Ok(document)
}

fn echo(bench: &mut Bench<'_>) -> Check {
    let newest = bench.plugin.newest();
    for version in ["0.4.0", "1.0.0"] {
        let document = judged(&bench.command("VERSION").config(&json!({"cniVersion": version})))?;
        let seen = &document["cniVersion"];
        ensure(seen == version || seen == newest, format!("cniVersion {version} or {newest}"), seen)?;
    }
    Ok(())
}
