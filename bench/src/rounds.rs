//! Measurements in turns: every path once in each round, so that a machine that slows down does so for all of them.

use anyhow::{Result, ensure};

/// What each path gave in each round.
#[derive(Debug)]
pub struct Rounds<S> {
    /// By path, then by round.
    samples: Vec<Vec<S>>,
}

impl<S> Rounds<S> {
    /// Measures each of `paths` once in each of `rounds`. Every round begins with another path.
    pub async fn run<P>(paths: &[P], rounds: usize, mut measure: impl AsyncFnMut(&P) -> Result<S>) -> Result<Self> {
        ensure!(rounds > 0 && !paths.is_empty(), "nothing is measured in no round or on no path");
        let mut samples: Vec<Vec<S>> = paths.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for turn in 0..paths.len() {
                let path = (round + turn) % paths.len();
                samples[path].push(measure(&paths[path]).await?);
            }
        }
        Ok(Self { samples })
    }

    /// The median over the rounds of one path.
    pub fn median(&self, path: usize, value: impl Fn(&S) -> f64) -> f64 {
        median(self.samples[path].iter().map(value).collect())
    }

    /// The median over the rounds of a path's value by the baseline's in the same round.
    pub fn ratio(&self, path: usize, baseline: usize, value: impl Fn(&S) -> f64) -> f64 {
        let pairs = self.samples[path].iter().zip(&self.samples[baseline]);
        median(pairs.map(|(path, baseline)| value(path) / value(baseline)).collect())
    }

    /// What one path gave, by round.
    pub fn of(&self, path: usize) -> &[S] {
        &self.samples[path]
    }
}

/// The middle one, or the mean of the two in the middle. Not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle)) {
        (_, None) => f64::NAN,
        (1, Some(value)) => *value,
        (_, Some(value)) => f64::midpoint(values[middle - 1], *value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_the_sorted_values() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0])), (2.0, 2.5));
        assert!(median(Vec::new()).is_nan());
    }

    #[tokio::test]
    async fn each_round_begins_with_another_path_and_ratios_are_of_the_same_round() -> Result<()> {
        let mut turns = Vec::new();
        let rounds = Rounds::run(&['a', 'b'], 2, async |path| {
            turns.push(*path);
            Ok(turns.len() as f64)
        })
        .await?;
        assert_eq!(turns, ['a', 'b', 'b', 'a']);
        assert_eq!((rounds.of(0), rounds.of(1)), (&[1.0, 4.0][..], &[2.0, 3.0][..]));
        assert!((rounds.median(0, |s| *s) - 2.5).abs() < 1e-9);
        assert!((rounds.ratio(0, 1, |s| *s) - f64::midpoint(0.5, 4.0 / 3.0)).abs() < 1e-9);
        Ok(())
    }

    #[tokio::test]
    async fn no_round_is_an_error() {
        assert!(Rounds::run(&['a'], 0, async |_| Ok(0.0)).await.is_err());
    }
}
