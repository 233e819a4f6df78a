//! The page that people look at: verdicts, plots, tables, in one file that loads nothing.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{add, all::All, datapath, judged::Judged, scale, services};

const STYLE: &str = include_str!("report.css");

/// All of a run.
pub(super) fn page(all: &All) -> Result<String> {
    let plots = [vec![datapath::svg(&all.datapath)?], datapath::others(&all.datapath)?].concat();
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
                     median of the ratios of single rounds, with quartiles. Where the controls of a run left their band, \
                     there is no verdict."
                }
                h2 { "Targets" }
                (verdicts(&all.judged()))
                h2 { "The datapath" }
                @for plot in &plots { (figure(plot)) }
                (words(&datapath::document(&all.datapath)))
                h2 { "Many services" }
                @for plot in services::svgs(&all.services)? { (figure(&plot)) }
                (words(&services::document(&all.services)))
                h2 { "ADD and DEL" }
                (figure(&add::svg(&all.add)?))
                (words(&add::document(&all.add)))
                @if let Some(scale) = &all.scale {
                    h2 { "Many nodes" }
                    (words(&scale::document(scale)))
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
    let class = |verdict: &str| match verdict.split([' ', ',']).next() {
        Some("met") => "met",
        Some("missed") => "missed",
        _ => "unknown",
    };
    html! {
        div.wide {
            table {
                thead { tr { @for head in ["", "minicni", "beside", "found", "target", "verdict"] { th { (head) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            td { (row.id) } td { (row.what) } td { (row.baseline) } td { (row.found) }
                            td { (row.target) } td class=(class(&row.verdict)) { (row.verdict) }
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

    #[test]
    fn the_page_has_all_plots_and_verdicts_and_loads_nothing() {
        let docs = crate::command::root().join("docs");
        let all = All::kept(&docs).unwrap();
        let page = page(&all).unwrap();
        assert_eq!(page.matches("<svg").count(), 10, "five of the datapath, four of services, one of ADD");
        for row in all.judged() {
            assert!(page.contains(&format!("<td>{}</td>", row.found)), "{row:?}");
        }
        let loads = ["<script", "<link", "<img", "@import", "url("];
        assert!(loads.iter().all(|element| !page.contains(element)), "{page}");
    }
}
