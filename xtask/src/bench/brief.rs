//! What README says of all this.

use std::collections::BTreeMap;

use comfy_table::{Table, presets::ASCII_MARKDOWN};

use super::{all::All, judged::Judged, part::Part};

/// The rows that it has: which of those of a target.
const ROWS: [(&str, usize); 18] = [
    ("D1", 0),
    ("D3", 0),
    ("D5", 0),
    ("D6", 0),
    ("D7", 0),
    ("D8", 0),
    ("D11", 0),
    ("F1", 0),
    ("X1", 0),
    ("X3", 0),
    ("C1", 0),
    ("C2", 1),
    ("C4", 0),
    ("C5", 0),
    ("M1", 1),
    ("M2", 0),
    ("M3", 1),
    ("S2", 0),
];

/// The verdicts as Markdown, and where and when they were found.
pub(super) fn table(all: &All) -> String {
    let rows = all.judged();
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["", "minicni", "beside", "found", "target", "verdict"]);
    for (id, number) in ROWS {
        let of_target: Vec<_> = rows.iter().filter(|row| row.id == id).collect();
        let Some(row) = of_target.get(number).or_else(|| of_target.first()) else { continue };
        let Judged { what, baseline, found, target, verdict, .. } = row;
        table.add_row([id, what, baseline, found, target, &verdict.to_string()]);
    }
    format!(
        "{table}\n\nIn parentheses: intervals of 95 %, and ambitious targets. {}\n\nAll targets, and how it is measured: {}.",
        places(all),
        links(all)
    )
}

/// The documents of what was measured.
fn links(all: &All) -> String {
    let link = |part: Part| {
        let document = part.document()?;
        Some(format!("[{}](docs/{document})", part.name()))
    };
    let links: Vec<_> = all.environments().into_iter().filter_map(|(part, _)| link(part)).collect();
    links.join(", ")
}

/// Once where all parts were measured on one day and one kernel.
fn places(all: &All) -> String {
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (part, environment) in all.environments() {
        let day = environment.date.split(' ').next().unwrap_or_default();
        let place = format!("{day}, Linux {}, {} CPUs ({})", environment.kernel, environment.cpus, environment.cpu);
        places.entry(place).or_default().push(part.name());
    }
    let all_the_same = places.len() == 1;
    let words = |(place, parts): (String, Vec<&str>)| {
        if all_the_same { format!("{place}.") } else { format!("{}: {place}.", parts.join(", ")) }
    };
    places.into_iter().map(words).collect::<Vec<_>>().join(" ")
}
