//! The table of the matrix, as Markdown.

use std::time::Duration;

use crate::verdict::Verdict;

const HEAD: &str = "| fault, and a second that begins while the first acts | open streams: error after | dials: slowest | slowest error of a dial | \
first success after | streams that lived moved after | false ends | wrong bytes | looked whole | \"away\" told after | true again after | held |\n\
|---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// All cells as rows.
pub(crate) fn rows(verdicts: &[Verdict]) -> String {
    verdicts.iter().fold(String::from(HEAD), |table, verdict| table + &row(verdict))
}

pub(crate) fn row(verdict: &Verdict) -> String {
    let runs = if verdict.runs > 1 { format!(" (run {})", verdict.runs) } else { String::new() };
    let held = if verdict.held() { format!("yes{runs}") } else { format!("**no**{runs}: {}", told(&verdict.broken)) };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {held} |\n",
        verdict.name,
        seconds(verdict.error),
        seconds(Some(verdict.dial)),
        seconds(verdict.refused),
        seconds(verdict.success),
        seconds(verdict.moved),
        verdict.false_ends,
        verdict.wrong,
        verdict.whole,
        seconds(verdict.true_away),
        seconds(verdict.true_again),
    )
}

/// The first of what broke, and how many more.
fn told(broken: &[String]) -> String {
    let first = broken.first().map(|first| first.replace('|', "/").chars().take(160).collect::<String>());
    let more = if broken.len() > 1 { format!(" (and {} more)", broken.len() - 1) } else { String::new() };
    format!("{}{more}", first.unwrap_or_default())
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| String::from("–"), |time| format!("{:.2} s", time.as_secs_f64()))
}
