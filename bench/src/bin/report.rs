//! All reports that the programs left: their tables, the plots of their ratios, and how many targets are met.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use bench::plot;
use bench::program::print;
use bench::report::{self, Report};
use clap::Parser;

/// Where a document holds the tables: what is between these lines is replaced.
const BEGIN: &str = "<!-- begin of the report -->\n";
const END: &str = "<!-- end of the report -->\n";

/// Prints every figure beside its target, and draws the ratios
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the programs left their JSON, and where the plots go [default: target/bench]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print Markdown, or with a FILE replace the tables in that document, as bench/README.md holds them
    #[arg(long, value_name = "FILE")]
    markdown: Option<Option<PathBuf>>,
}

fn main() -> Result<()> {
    let Arguments { folder, markdown } = Arguments::parse();
    let folder = folder.map_or_else(report::folder, Ok)?;
    let reports = Report::read_all(&folder)?;
    ensure!(!reports.is_empty(), "{} holds no report: run `make bench` first", folder.display());
    for report in &reports {
        plot::write(report, &folder.join(&report.program).with_extension("svg"))?;
    }
    let tables = |table: fn(&Report) -> String| reports.iter().map(table).collect::<Vec<String>>().join("\n");
    match markdown {
        None => print(&format!("{}\n{}; plots are in {}", tables(Report::table), verdict(&reports), folder.display())),
        Some(None) => print(&tables(Report::markdown)),
        Some(Some(document)) => {
            let old = fs::read_to_string(&document).with_context(|| format!("no document {}", document.display()))?;
            let tables = format!("{}.\n\n{}", verdict(&reports), tables(Report::markdown));
            let new = replaced(&old, &tables).with_context(|| format!("{} has no {BEGIN}", document.display()))?;
            fs::write(&document, new)?;
        }
    }
    Ok(())
}

fn verdict(reports: &[Report]) -> String {
    let (met, missed) = reports.iter().map(Report::verdicts).fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    format!("{met} targets are met, {missed} are not")
}

/// The document with `tables` where the old ones were.
fn replaced(document: &str, tables: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(replaced(&document, "new\n"), Some(format!("a\n{BEGIN}\nnew\n\n{END}b\n")));
        assert_eq!(replaced("a\n", "new"), None);
    }
}
