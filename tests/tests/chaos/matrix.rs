//! The matrix: cells run beside each other, and the table of what they showed.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};

use crate::cell::Cell;
use crate::config;
use crate::fault::{ALL, Fault};
use crate::table;
use crate::verdict::Verdict;

/// How often cells that were late are run again, and how many at a time.
const AGAIN: usize = 2;
const FEW: usize = 6;

/// What `make test` runs: of each kind of end one that is short, and the pairs that have broken before. What an outage of 13 s
/// leaves as it is, is a scenario's (`faults::silence`).
fn selection() -> Vec<Cell> {
    let pair = |first, second| Cell { first, second: Some(second) };
    vec![
        Cell::alone(Fault::AgentKilled),
        Cell::alone(Fault::AgentCrashed),
        Cell::alone(Fault::AgentStopped),
        Cell::alone(Fault::HubKilled),
        Cell::alone(Fault::HubStopped),
        Cell::alone(Fault::LinkDown(5)),
        Cell::alone(Fault::AgentMute),
        pair(Fault::LinkDown(5), Fault::HubKilled),
        pair(Fault::HubFrozen(5), Fault::AgentCrashed),
    ]
}

/// Every fault alone, then every pair.
fn everything(seed: u64) -> Vec<Cell> {
    let pairs = ALL
        .iter()
        .enumerate()
        .flat_map(|(index, one)| ALL[index + 1..].iter().filter_map(move |other| Cell::pair(*one, *other, seed)));
    ALL.into_iter().map(Cell::alone).chain(pairs).collect()
}

/// Runs cells, so many at a time; gives their verdicts in their order.
async fn run(cells: Vec<Cell>, jobs: usize, seed: u64) -> Result<Vec<Verdict>> {
    let all = cells.len();
    // Each drives its own site by a look now and then: one task has time for all of them.
    let running = cells
        .into_iter()
        .enumerate()
        .map(|(index, cell)| Box::pin(async move { (index, cell.run(seed).await.with_context(|| cell.to_string())) }));
    let mut running = stream::iter(running).buffer_unordered(jobs);
    let mut verdicts = Vec::new();
    while let Some((index, verdict)) = running.next().await {
        match verdict {
            Ok(verdict) => {
                eprint!("{} of {all}: {}", verdicts.len() + 1, table::row(&verdict));
                verdict.broken.iter().for_each(|broken| eprintln!("    {broken}"));
                verdicts.push((index, verdict));
            }
            Err(error) => verdicts.push((index, Verdict::not_run(&error))),
        }
    }
    verdicts.sort_by_key(|(index, _)| *index);
    Ok(verdicts.into_iter().map(|(_, verdict)| verdict).collect())
}

/// Runs cells, and those once more that were late, a few at a time: where many share a machine, times say little. What is lost, wrong
/// or ended for no reason is so, whatever the machine does. Shows the verdicts after each round.
async fn run_with_patience(
    cells: &[Cell],
    jobs: usize,
    seed: u64,
    show: impl Fn(&[Verdict]) -> Result<()>,
) -> Result<Vec<Verdict>> {
    let mut verdicts = run(cells.to_vec(), jobs, seed).await?;
    for _ in 0..AGAIN {
        show(&verdicts)?;
        let late: Vec<_> = (0..verdicts.len()).filter(|index| verdicts[*index].is_only_late()).collect();
        let again = late.iter().map(|index| cells[*index].clone()).collect();
        for (index, verdict) in late.iter().zip(run(again, FEW.min(jobs), seed).await?) {
            verdicts[*index] = Verdict { runs: verdicts[*index].runs + 1, ..verdict };
        }
    }
    show(&verdicts)?;
    Ok(verdicts)
}

fn demand(verdicts: &[Verdict]) -> Result<()> {
    let broken: Vec<_> = verdicts.iter().filter(|verdict| !verdict.held()).collect();
    let told = broken.iter().map(|verdict| format!("{}:\n    {}", verdict.name, verdict.broken.join("\n    ")));
    ensure!(broken.is_empty(), "{} cells break a bound\n{}", broken.len(), told.collect::<Vec<_>>().join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_of_faults_keeps_the_bounds() -> Result<()> {
    let cells = selection();
    demand(&run_with_patience(&cells, cells.len(), config::chaos_seed(), |_| Ok(())).await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos: every fault alone and in pairs, half an hour"]
async fn every_fault_alone_and_in_pairs_keeps_the_bounds() -> Result<()> {
    let (seed, filter) = (config::chaos_seed(), config::chaos_filter());
    let mut cells = everything(seed);
    cells.retain(|cell| cell.to_string().contains(&filter));
    let (jobs, begun) = (config::chaos_jobs(), Instant::now());
    let verdicts = run_with_patience(&cells, jobs, seed, |verdicts| {
        let held = verdicts.iter().filter(|verdict| verdict.held()).count();
        let mut page = format!("{}\n", include_str!("faults.md"));
        let _ = writeln!(
            page,
            "{held} of {} cells held every bound. Seed {seed}; {jobs} cells at a time, {} minutes, on {}.\n",
            verdicts.len(),
            begun.elapsed().as_secs() / 60,
            machine()
        );
        page.push_str(&table::rows(verdicts));
        match config::chaos_table() {
            Some(file) => fs::write(&file, page).with_context(|| format!("cannot write {}", file.display())),
            None => Ok(()),
        }
    });
    demand(&verdicts.await?)
}

/// What the figures were measured on.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> =
        cpus.lines().filter_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim())).collect();
    format!("{} x {}", models.len(), models.first().unwrap_or(&"a processor that does not say its name"))
}
