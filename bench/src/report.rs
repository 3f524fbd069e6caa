//! The figures of one question, each beside its target: as a table for people, and as JSON for later.

mod table;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// What one program found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The program's name, e.g. `bulk`.
    pub program: String,
    /// The question's number in the list of questions, 1 to 11.
    pub question: u8,
    /// The question in words.
    pub title: String,
    /// Where it ran.
    pub machine: Machine,
    /// Whether it was the short form.
    pub short: bool,
    /// In the order in which they are shown.
    pub figures: Vec<Figure>,
    /// What was left out on this machine and why, one sentence each.
    pub notes: Vec<String>,
}

/// One figure: a value of one path, and where there is a baseline the ratio to it within the same rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured, e.g. `1 stream, download`.
    pub name: String,
    /// On which path, e.g. `ours`.
    pub path: String,
    /// The median over the rounds.
    pub value: f64,
    /// Of the value, e.g. `Gbit/s`.
    pub unit: String,
    /// CPU beside it, with its unit.
    pub cpu: Option<Cost>,
    /// To what it is compared.
    pub ratio: Option<Ratio>,
    /// What it must be: the ratio where there is one, otherwise the value.
    pub target: Option<Target>,
}

/// What a figure cost in CPU time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The median over the rounds.
    pub value: f64,
    /// Its unit, e.g. `s/GiB`.
    pub unit: String,
}

/// A value by that of a baseline in the same round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The baseline's name, e.g. `TLS relay`.
    pub baseline: String,
    /// The median over the rounds.
    pub value: f64,
}

/// A bound that the issue sets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
    /// Neither less than the one nor more than the other.
    Between(f64, f64),
}

impl Report {
    /// An empty one of this machine.
    pub fn new(program: &str, question: u8, title: &str, short: bool) -> Result<Self> {
        let (program, title) = (program.to_owned(), title.to_owned());
        let machine = Machine::this()?;
        Ok(Self { program, question, title, machine, short, figures: Vec::new(), notes: Vec::new() })
    }

    /// The aligned table that a program prints.
    pub fn table(&self) -> String {
        table::text(self)
    }

    /// The same as a Markdown table.
    pub fn markdown(&self) -> String {
        table::markdown(self)
    }

    /// How many targets are met and how many are not.
    pub fn verdicts(&self) -> (usize, usize) {
        let verdicts: Vec<bool> = self.figures.iter().filter_map(Figure::passes).collect();
        let met = verdicts.iter().filter(|passes| **passes).count();
        (met, verdicts.len() - met)
    }

    /// Writes it to `file`, or to its place among the others.
    pub fn write(&self, file: Option<&Path>) -> Result<PathBuf> {
        let own = folder()?.join(format!("{}.json", self.program));
        let file = file.map_or(own, Path::to_owned);
        let written = fs::write(&file, serde_json::to_vec_pretty(self)?);
        written.with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(file)
    }

    /// All that lie in the folder, in the order of the questions.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let mut reports = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("{} is no folder", folder.display()))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                let report = serde_json::from_slice(&fs::read(&file)?);
                reports.push(report.with_context(|| format!("{} is no report", file.display()))?);
            }
        }
        reports.sort_by_key(|report: &Self| report.question);
        Ok(reports)
    }
}

impl Figure {
    /// A value without anything beside it.
    pub fn new(name: impl Into<String>, path: impl Into<String>, value: f64, unit: &str) -> Self {
        let unit = unit.to_owned();
        Self { name: name.into(), path: path.into(), value, unit, cpu: None, ratio: None, target: None }
    }

    /// With what it cost.
    #[must_use]
    pub fn cpu(mut self, value: f64, unit: &str) -> Self {
        self.cpu = Some(Cost { value, unit: unit.to_owned() });
        self
    }

    /// Compared to a baseline.
    #[must_use]
    pub fn of(mut self, baseline: &str, value: f64) -> Self {
        self.ratio = Some(Ratio { baseline: baseline.to_owned(), value });
        self
    }

    /// With what it must be.
    #[must_use]
    pub fn target(mut self, target: impl Into<Option<Target>>) -> Self {
        self.target = target.into();
        self
    }

    /// Whether the target is met; none without a target. What is not a number meets none.
    pub fn passes(&self) -> Option<bool> {
        let judged = self.ratio.as_ref().map_or(self.value, |ratio| ratio.value);
        self.target.map(|target| match target {
            Target::AtLeast(bound) => judged >= bound,
            Target::AtMost(bound) => judged <= bound,
            Target::Between(least, most) => (least..=most).contains(&judged),
        })
    }
}

/// `target/bench`, where reports, plots and logs are, beside the folder of the programs. Made if it is not there.
pub fn folder() -> Result<PathBuf> {
    let program = env::current_exe().context("this program's own path is not known")?;
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let folder = target.context("this program lies in no target folder of cargo")?.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// The line for a shell that sends the standard error of the program it becomes to `target/bench/NAME.log`.
pub fn log_to(name: &str) -> Result<String> {
    let file = folder()?.join(format!("{name}.log"));
    Ok(format!("exec 2>'{}'", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_judges_the_ratio_where_there_is_one() {
        let figure = Figure::new("1 stream", "ours", 7.0, "Gbit/s").target(Target::AtLeast(0.85));
        assert_eq!(figure.passes(), Some(true));
        assert_eq!(figure.clone().of("TLS relay", 0.7).passes(), Some(false));
        assert_eq!(figure.clone().of("TLS relay", 0.85).passes(), Some(true));
        assert_eq!(figure.clone().of("TLS relay", f64::NAN).passes(), Some(false));
        let fair = |ratio| figure.clone().of("TCP", ratio).target(Target::Between(0.5, 2.0)).passes();
        assert_eq!([0.4, 0.5, 2.0, 2.1].map(fair), [false, true, true, false].map(Some));
        assert_eq!(figure.target(None).passes(), None);
    }

    #[test]
    fn reports_are_read_back_in_the_order_of_the_questions() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut reports = vec![Report::new("requests", 2, "?", true)?, Report::new("bulk", 1, "?", true)?];
        for report in &mut reports {
            report.figures.push(Figure::new("a", "ours", 1.0, "s").cpu(2.0, "s/GiB").of("b", 0.5));
            report.write(Some(&folder.path().join(&report.program).with_extension("json")))?;
        }
        reports.reverse();
        assert_eq!(Report::read_all(folder.path())?, reports);
        Ok(())
    }
}
