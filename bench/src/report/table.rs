//! A report as a table, aligned for a terminal or as Markdown.

use super::{Figure, Report, Target};

const HEADS: [&str; 7] = ["figure", "path", "value", "ratio", "target", "verdict", "CPU"];

pub(super) fn text(report: &Report) -> String {
    let rows: Vec<[String; 7]> = report.figures.iter().map(cells).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([HEADS[column].len()]).max();
    let widths: Vec<usize> = (0..HEADS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<String>>().join("  ").trim_end())
    };
    let mut text = format!("\nQuestion {}: {}\n{}\n\n", report.question, report.title, made(report));
    text.push_str(&line(&HEADS.map(str::to_owned)));
    rows.iter().for_each(|row| text.push_str(&line(row)));
    report.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    text
}

pub(super) fn markdown(report: &Report) -> String {
    let mut text = format!("### {}. {}\n\n{}\n\n", report.question, report.title, made(report));
    text.push_str(&format!("| {} |\n|{}\n", HEADS.join(" | "), "---|".repeat(HEADS.len())));
    for figure in &report.figures {
        text.push_str(&format!("| {} |\n", cells(figure).join(" | ")));
    }
    if !report.notes.is_empty() {
        text.push('\n');
    }
    report.notes.iter().for_each(|note| text.push_str(&format!("- {note}\n")));
    text
}

/// With what the report was made, in one line.
fn made(report: &Report) -> String {
    let form = if report.short { "short form" } else { "full form" };
    format!("{form}, {}", report.machine.describe())
}

fn cells(figure: &Figure) -> [String; 7] {
    let Figure { name, path, value, unit, cpu, ratio, target } = figure;
    let target = target.map(|target| match target {
        Target::AtLeast(bound) => format!(">= {bound}"),
        Target::AtMost(bound) => format!("<= {bound}"),
        Target::Between(least, most) => format!("{least} to {most}"),
    });
    let verdict = figure.passes().map(|passes| if passes { "pass" } else { "FAIL" });
    [
        name.clone(),
        path.clone(),
        format!("{} {unit}", number(*value)),
        ratio.as_ref().map_or_else(String::new, |ratio| format!("{:.2} of {}", ratio.value, ratio.baseline)),
        target.unwrap_or_default(),
        verdict.unwrap_or_default().to_owned(),
        cpu.as_ref().map_or_else(String::new, |cpu| format!("{} {}", number(cpu.value), cpu.unit)),
    ]
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_told_beside_its_target() -> anyhow::Result<()> {
        let mut report = Report::new("bulk", 1, "How much?", true)?;
        let figure = Figure::new("1 stream", "ours", 7.0, "Gbit/s").of("TLS relay", 0.7).cpu(2.25, "s/GiB");
        report.figures.push(figure.target(Target::AtLeast(0.85)));
        report.notes.push("no peer".to_owned());
        let text = report.table();
        let row = "1 stream  ours  7.00 Gbit/s  0.70 of TLS relay  >= 0.85  FAIL     2.25 s/GiB\n";
        assert!(text.contains(row) && text.ends_with("note: no peer\n"), "{text}");
        let row = "| 1 stream | ours | 7.00 Gbit/s | 0.70 of TLS relay | >= 0.85 | FAIL | 2.25 s/GiB |\n\n- no peer\n";
        assert!(report.markdown().ends_with(row), "{}", report.markdown());
        Ok(())
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([0.5, 12.345, 1234.5].map(number), ["0.50", "12.3", "1234"]);
    }
}
