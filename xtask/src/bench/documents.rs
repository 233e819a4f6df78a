//! The documents that are made of kept figures, and the figures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Serialize, de::DeserializeOwned};

use super::{add, all::All, brief, churn, datapath, output, part::Part, scale, services};

/// Where README has its table.
const BEGIN: &str = "<!-- made by `cargo xtask bench all --from docs --docs docs` -->\n";
const END: &str = "\n<!-- until here -->";

/// Measured by hand, because it needs another kernel.
const COUNTED: &str = "bench-flowtable.json";

/// The figures that a directory keeps.
pub(super) fn kept(directory: &Path) -> Result<All> {
    fn read<R: DeserializeOwned>(directory: &Path, part: Part) -> Result<Option<R>> {
        let file = file(directory, part);
        file.exists().then(|| output::read(&file)).transpose()
    }
    Ok(All {
        datapath: read(directory, Part::Datapath)?,
        services: read(directory, Part::Services)?,
        add: read(directory, Part::Add)?,
        churn: read(directory, Part::Churn)?,
        scale: read(directory, Part::Scale)?,
        sizes: read(directory, Part::Sizes)?,
        counted: match directory.join(COUNTED) {
            file if file.exists() => Some(output::read(&file)?),
            _ => None,
        },
        failed: Vec::new(),
    })
}

/// Keeps the figures of a run. Those of a part that failed stay what they were.
pub(super) fn keep(all: &All, directory: &Path) -> Result<()> {
    fn write<R: Serialize>(directory: &Path, part: Part, report: Option<&R>) -> Result<()> {
        report.map_or(Ok(()), |report| output::json(report, &file(directory, part)))
    }
    let All { datapath, services, add, churn, scale, sizes, .. } = all;
    write(directory, Part::Datapath, datapath.as_ref())?;
    write(directory, Part::Services, services.as_ref())?;
    write(directory, Part::Add, add.as_ref())?;
    write(directory, Part::Churn, churn.as_ref())?;
    write(directory, Part::Scale, scale.as_ref())?;
    write(directory, Part::Sizes, sizes.as_ref())
}

fn file(directory: &Path, part: Part) -> PathBuf {
    directory.join(format!("bench-{}.json", part.name()))
}

/// Writes all documents.
pub(super) fn write(all: &All, directory: &Path) -> Result<()> {
    made(all, directory)?.iter().try_for_each(|(file, text)| output::write(file, text))
}

/// Fails where a document is not what the figures make it.
pub(super) fn check(all: &All, directory: &Path) -> Result<()> {
    let differs = |(file, text): &(PathBuf, String)| fs::read_to_string(file).ok().as_ref() != Some(text);
    let files = made(all, directory)?.into_iter().filter(differs).map(|(file, _)| file.display().to_string());
    let files: Vec<_> = files.collect();
    if files.is_empty() {
        return Ok(());
    }
    bail!(
        "the figures in {} make other documents than there are; run `cargo xtask bench all --from docs --docs docs`: {}",
        directory.display(),
        files.join(", ")
    )
}

/// The documents, plots, and the README beside the directory, with what they are to say.
fn made(all: &All, directory: &Path) -> Result<Vec<(PathBuf, String)>> {
    let (mut made, mut plots) = (Vec::new(), Vec::new());
    if let Some(report) = &all.datapath {
        made.push((Part::Datapath, datapath::document(report)));
        plots.push(("bench-datapath.svg", datapath::svg(report)?));
    }
    if let Some(report) = &all.services {
        made.push((Part::Services, services::document(report)));
        plots.push(("bench-services.svg", services::svg(report)?));
    }
    if let Some(report) = &all.add {
        made.push((Part::Add, add::document(report)));
        plots.push(("bench-add.svg", add::svg(report)?));
    }
    if let Some(report) = &all.churn {
        made.push((Part::Churn, churn::document(report)));
        plots.push(("bench-churn.svg", churn::svg(report)?));
    }
    if let Some(report) = &all.scale {
        made.push((Part::Scale, scale::document(report)));
    }
    let counted = all.counted.as_ref().map(|report| ("bench-flowtable.md", datapath::counted(report)));
    let documents = made.into_iter().filter_map(|(part, text)| Some((part.document()?, text))).chain(counted);
    let mut made: Vec<_> = documents.chain(plots).map(|(name, text)| (directory.join(name), text)).collect();
    let readme = directory.join("../README.md");
    let text = fs::read_to_string(&readme).with_context(|| format!("read {}", readme.display()))?;
    let text = with_table(&text, &brief::table(all)).with_context(|| format!("{} has no place", readme.display()))?;
    made.push((readme, text));
    Ok(made)
}

/// The same text with another table.
fn with_table(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_show_the_figures_that_are_kept_beside_them() {
        let docs = crate::command::root().join("docs");
        check(&kept(&docs).unwrap(), &docs).unwrap();
    }

    #[test]
    fn what_is_written_is_read_again_and_a_document_that_was_changed_is_found() {
        let root = std::env::temp_dir().join(format!("minicni-documents-{}", std::process::id()));
        let docs = root.join("docs");
        fs::create_dir_all(&docs).unwrap();
        fs::write(root.join("README.md"), format!("before\n{BEGIN}old{END}\nafter\n")).unwrap();
        let all = kept(&crate::command::root().join("docs")).unwrap();
        keep(&all, &docs).unwrap();
        let again = kept(&docs).unwrap();
        write(&again, &docs).unwrap();
        check(&again, &docs).unwrap();
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        assert!(readme.starts_with("before\n") && readme.ends_with("\nafter\n") && !readme.contains("old"), "{readme}");
        fs::write(docs.join("performance.md"), "changed").unwrap();
        let error = check(&again, &docs).unwrap_err().to_string();
        assert!(error.contains("performance.md") && !error.contains("bench-add.md"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }
}
