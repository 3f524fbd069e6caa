//! Paths measured in turns and compared to one of them.

use anyhow::{Context as _, Result};

use crate::path::{Path, Running};
use crate::report::Figure;
use crate::rounds::Rounds;

/// What each path gave, and which of them is the baseline.
#[derive(Debug)]
pub struct Comparison<'p, S> {
    paths: Vec<&'p Running>,
    baseline: usize,
    rounds: Rounds<S>,
}

/// One path's part in a comparison.
#[derive(Debug)]
pub struct Compared<'c, 'p, S> {
    /// The path.
    pub path: &'p Running,
    index: usize,
    comparison: &'c Comparison<'p, S>,
}

impl<'p, S> Comparison<'p, S> {
    /// Measures each of `paths`, of which `baseline` is one, in each of `rounds`.
    pub async fn run(
        paths: Vec<&'p Running>,
        baseline: &Path,
        rounds: usize,
        mut measure: impl AsyncFnMut(&Running) -> Result<S>,
    ) -> Result<Self> {
        let position = paths.iter().position(|running| running.path == *baseline);
        let baseline = position.with_context(|| format!("{} is not measured", baseline.name()))?;
        let rounds = Rounds::run(&paths, rounds, async |path| measure(path).await).await?;
        Ok(Self { paths, baseline, rounds })
    }

    /// Each path in turn.
    pub fn iter(&self) -> impl Iterator<Item = Compared<'_, 'p, S>> {
        self.paths.iter().enumerate().map(|(index, path)| Compared { path, index, comparison: self })
    }
}

impl<S> Compared<'_, '_, S> {
    /// The median of a value, and its ratio to the baseline's, except for the baseline itself.
    pub fn figure(&self, name: impl Into<String>, unit: &str, value: impl Fn(&S) -> f64) -> Figure {
        let Comparison { paths, baseline, rounds } = self.comparison;
        let figure = Figure::new(name, &self.path.name, rounds.median(self.index, &value), unit);
        if self.index == *baseline {
            return figure;
        }
        figure.of(&paths[*baseline].name, rounds.ratio(self.index, *baseline, value))
    }

    /// The median of a value alone, for what is not compared.
    pub fn median(&self, value: impl Fn(&S) -> f64) -> f64 {
        self.comparison.rounds.median(self.index, value)
    }

    /// Whether the CPU seconds of all processes between load and service are known, which those of a peer are not.
    pub fn is_accounted(&self) -> bool {
        !self.path.counted.is_empty()
    }
}
