//! What the sender of a tunnel knew of its path while it was measured, as a drawing: why a figure is what it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ::tests::metrics::Metrics;
use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use crate::link::Link;
use crate::path::Running;
use crate::place;
use crate::report::{self, Report};
use crate::role;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// What quinn sends in a round trip, in windows.
const PACE: f64 = 1.25;
/// Pixels of one of the drawings, which stand one below the other.
const SIZE: (u32, u32) = (900, 150);
/// Of it, at the top, for its name.
const HEAD: i32 = 24;

/// One look at the agent's metrics.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// Seconds since the first.
    at: f64,
    /// Seconds.
    rtt: f64,
    /// Bytes.
    window: f64,
    /// Packets since the tunnel began.
    lost: f64,
}

/// Looks at an agent, in the order of their times.
#[derive(Debug, Clone, Default)]
pub struct Trace(Vec<Look>);

/// Runs a load over a path, and looks at the path's agent meanwhile: the sender of downloads. None where it is no path of ours.
pub async fn recorded<T>(
    link: &Link,
    path: &Running,
    load: impl Future<Output = Result<T>>,
) -> Result<(T, Option<Trace>)> {
    let Some(ours) = &path.ours else { return Ok((load.await?, None)) };
    let recorder = Recorder::start(link.far().file(), ours.spoke.metrics())?;
    let carried = load.await;
    let trace = recorder.stop();
    Ok((carried?, Some(trace?)))
}

/// Draws what was known meanwhile where the newest figure with a target misses it, and notes where the drawings are.
pub fn explain(report: &mut Report, traces: impl IntoIterator<Item = Option<Trace>>) -> Result<()> {
    let judged = report.figures.iter().rev().find_map(|figure| Some((figure.passes()?, figure.name.clone())));
    let Some((false, name)) = judged else { return Ok(()) };
    for (at, trace) in (1..).zip(traces.into_iter().flatten()) {
        let file = trace.draw(&format!("{} {name} {at}", report.program))?;
        report.notes.push(format!("{name}: {}", file.display()));
    }
    Ok(())
}

/// A thread at the far end, so that its looks do not cross the link.
struct Recorder {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<Trace>>,
}

impl Recorder {
    fn start(netns: PathBuf, agent: SocketAddr) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = thread::Builder::new().name("trace".to_owned()).spawn(move || {
            place::enter(&netns)?;
            role::runtime()?.block_on(Trace::take(agent, &told))
        })?;
        Ok(Self { ended, thread })
    }

    fn stop(self) -> Result<Trace> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the trace's thread has panicked"))?
    }
}

impl Trace {
    async fn take(agent: SocketAddr, ended: &AtomicBool) -> Result<Self> {
        let (begun, mut looks) = (Instant::now(), Vec::new());
        while !ended.load(Ordering::Relaxed) {
            let metrics = Metrics::fetch(agent).await?;
            let of = |name: &str| metrics.sum(&format!("proxy_agent_tunnel_{name}"), &[]);
            let (rtt, window, lost) = (of("rtt_seconds"), of("window_bytes"), of("packets_lost_total"));
            looks.push(Look { at: begun.elapsed().as_secs_f64(), rtt, window, lost });
            tokio::time::sleep(LOOK).await;
        }
        Ok(Self(looks))
    }

    /// Draws it into `target/bench/NAME.svg`; where that is.
    fn draw(&self, name: &str) -> Result<PathBuf> {
        let name: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let file = report::folder()?.join(format!("{name}.svg"));
        self.write(&file).with_context(|| format!("{} cannot be drawn", file.display()))?;
        Ok(file)
    }

    fn write(&self, file: &Path) -> Result<()> {
        let lost: Vec<f64> = [0.0].into_iter().chain(self.0.windows(2).map(|two| two[1].lost - two[0].lost)).collect();
        let of = |value: fn(&Look) -> f64| self.0.iter().map(value).collect::<Vec<f64>>();
        let lines = [
            ("window, kB", of(|look| look.window / 1e3)),
            ("pacing rate, Mbit/s", of(|look| PACE * look.window / look.rtt.max(1e-6) * 8e-6)),
            ("round trip, ms", of(|look| look.rtt * 1e3)),
            ("packets given up for lost, in 50 ms", lost),
        ];
        let size = (SIZE.0, SIZE.1 * lines.len() as u32);
        let area = SVGBackend::new(file, size).into_drawing_area();
        area.fill(&WHITE)?;
        let (width, height) = (f64::from(SIZE.0), f64::from(SIZE.1) - f64::from(HEAD) - 6.0);
        let end = self.0.last().map_or(1.0, |look| look.at.max(1e-3));
        for (place, (name, values)) in area.split_evenly((lines.len(), 1)).iter().zip(&lines) {
            let most = values.iter().copied().fold(0.0, f64::max);
            let title = format!("{name}: up to {most:.1}, in {end:.1} s");
            place.draw(&Text::new(title, (8, 4), ("sans-serif", 15).into_font().color(&BLACK)))?;
            let point = |(look, value): (&Look, &f64)| {
                let (x, y) = (look.at / end * width, height * (1.0 - value / most.max(1e-9)));
                (x.round() as i32, HEAD + y.round() as i32)
            };
            place.draw(&PathElement::new(self.0.iter().zip(values).map(point).collect::<Vec<_>>(), BLACK))?;
        }
        Ok(area.present()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_a_line_for_each_thing_that_is_known() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let look = |at, rtt, window, lost| Look { at, rtt, window, lost };
        let trace = Trace(vec![look(0.0, 0.02, 40e3, 7.0), look(0.05, 0.03, 80e3, 7.0), look(0.1, 0.02, 60e3, 9.0)]);
        let file = folder.path().join("trace.svg");
        trace.write(&file)?;
        let drawn = std::fs::read_to_string(&file)?;
        assert_eq!(drawn.matches("<polyline").count(), 4, "{drawn}");
        for title in ["window, kB: up to 80.0", "Mbit/s: up to 30.0", "ms: up to 30.0", "in 50 ms: up to 2.0"] {
            assert!(drawn.contains(title), "{title}\n{drawn}");
        }
        Ok(())
    }
}
