//! The demo's words.

use std::fmt::Write as _;

use anyhow::Result;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use minicni_common::names::LAYOUT_VERSION;

use super::matrix::{Path, Row, Seen};
use crate::lab::{Lab, Pod};

pub(super) fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    let header = ["from", "to", "address", "TCP", "UDP", "on the fast path", "as promised"];
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for row in rows {
        table.add_row([
            row.from.clone(),
            row.to.clone(),
            row.address.to_string(),
            round_trip(&row.tcp),
            round_trip(&row.udp),
            format!("{}, {}", share(&row.tcp), share(&row.udp)),
            match (row.as_promised(), row.expected) {
                (true, Path::Fast) => "yes, fast".to_owned(),
                (true, Path::Stack) => "yes, stack".to_owned(),
                (false, _) => "NO".to_owned(),
            },
        ]);
    }
    let mut text = table.to_string();
    for row in rows {
        for error in [&row.tcp, &row.udp].into_iter().filter_map(|seen| seen.as_ref().err()) {
            let _ = write!(text, "\n{} to {}: {error}", row.from, row.to);
        }
    }
    text + "\n\n\
            Round trips are medians of 2,000 requests of one byte; the share on the fast path is that of TCP, then UDP.\n\
            A flow gets there after some twelve packets each way. Translated flows, and those with the node itself, stay\n\
            in the kernel's stack."
}

fn round_trip(seen: &Result<Seen, String>) -> String {
    seen.as_ref().map_or("does not work".to_owned(), |seen| format!("{:.0} µs", seen.round_trip_us))
}

fn share(seen: &Result<Seen, String>) -> String {
    seen.as_ref().map_or("-".to_owned(), |seen| format!("{:.1} %", seen.fast_percent))
}

/// What a person may type while the demo is kept.
pub(super) fn invitation(lab: &Lab, pods: &[[Pod; 2]]) -> Result<String> {
    let (Some(node), Some([one, other])) = (lab.nodes.first(), pods.first()) else { return Ok(String::new()) };
    let netns = node.netns_name();
    let pins = node.bpf_dir().join(LAYOUT_VERSION);
    Ok(format!(
        "Everything is still there. Look at it, for example:\n\n  \
           ip netns exec {netns} {status}\n  \
           ip netns exec {netns} ip route\n  \
           ip netns exec {netns} tc qdisc show dev {host}\n  \
           ip netns exec {pod} ping -c 3 {address}\n  \
           bpftool map dump pinned {pins}/endpoints\n  \
           bpftool map dump pinned {pins}/flows4\n  \
           bpftool map dump pinned {pins}/counters\n\n\
         Remove it with: cargo xtask demo --clean",
        status = crate::command::shown(&node.minicnid("status")),
        host = one.host_interface()?,
        pod = one.netns_name(),
        address = other.address()?,
        pins = pins.display(),
    ))
}
