//! The page that people look at: verdicts, plots, tables, in one file that loads nothing.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    add,
    all::All,
    churn, datapath,
    judged::{self, Judged},
    scale, services,
};

const STYLE: &str = include_str!("report.css");

/// All of a run.
pub(super) fn page(all: &All) -> Result<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "minicni by the numbers" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "minicni by the numbers" }
                p {
                    "Everything was measured beside its peers in the same run, interleaved and in random order. A ratio is the \
                     median of the ratios of single rounds, with its 95 % interval. A target is met or missed where all of the \
                     interval is on one side of it; where the controls of a run did not hold, there is no verdict."
                }
                @for failed in &all.failed { p.missed { (failed.part.name()) " failed: " (failed.why) } }
                h2 { "Targets" }
                (verdicts(&all.judged()))
                @if let Some(report) = &all.datapath {
                    h2 { "The datapath" }
                    (figure(&datapath::svg(report)?))
                    @for plot in datapath::others(report)? { (figure(&plot)) }
                    (words(&datapath::document(report)))
                }
                @if let Some(report) = &all.services {
                    h2 { "Many services" }
                    @for plot in services::svgs(report)? { (figure(&plot)) }
                    (words(&services::document(report)))
                }
                @if let Some(report) = &all.add {
                    h2 { "ADD and DEL" }
                    (figure(&add::svg(report)?))
                    (words(&add::document(report)))
                }
                @if let Some(report) = &all.churn {
                    h2 { "Many pods that come and go" }
                    (figure(&churn::svg(report)?))
                    (words(&churn::document(report)))
                }
                @if let Some(report) = &all.scale {
                    h2 { "Many nodes" }
                    (words(&scale::document(report)))
                }
            }
        }
    };
    Ok(page.into_string())
}

fn figure(svg: &str) -> Markup {
    html! { figure { (PreEscaped(svg)) } }
}

/// The verdicts, in colours that say the same as the words.
fn verdicts(rows: &[Judged]) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { @for head in judged::HEADER { th { (head) } } } }
                tbody {
                    @for row in rows {
                        @let [id, what, baseline, found, target, ceiling, verdict] = row.cells();
                        tr {
                            td { (id) } td { (what) } td { (baseline) } td.figure { (found) } td.figure { (target) }
                            td { (ceiling) } td class=(row.verdict.class()) { (verdict) }
                        }
                    }
                }
            }
        }
    }
}

/// The document of a benchmark, folded, as it is kept in docs/.
fn words(markdown: &str) -> Markup {
    html! { details { summary { "Figures, controls and how it was measured" } pre { (markdown) } } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::documents;

    #[test]
    fn the_page_has_all_plots_and_verdicts_and_loads_nothing() {
        let docs = crate::command::root().join("docs");
        let all = documents::kept(&docs).unwrap();
        let page = page(&all).unwrap();
        assert!(page.matches("<svg").count() >= 9, "four of the datapath at least, four of services, one of ADD");
        for row in all.judged() {
            assert!(page.contains(&format!("<td class=\"figure\">{}</td>", row.found)), "{row:?}");
        }
        let loads = ["<script", "<link", "<img", "@import", "url("];
        assert!(loads.iter().all(|element| !page.contains(element)), "{page}");
    }
}
