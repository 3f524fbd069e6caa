//! The ratios of a report as bars, drawn as SVG: one bar for a figure, a mark where its target is, a line at 1.

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Figure, Report, Target};

/// Pixels: one bar with its gap, the labels' column, the bars' column, the edge, the title.
const BAR: i32 = 22;
const LABELS: i32 = 380;
const WIDTH: i32 = 460;
const EDGE: i32 = 70;
const TITLE: i32 = 46;
const FONT: &str = "sans-serif";
/// Ratios beyond this are cut, so that those near 1 can be told apart; the number stands beside the bar.
const WIDEST: f64 = 3.0;

const PLAIN: RGBColor = RGBColor(150, 158, 170);
const MET: RGBColor = RGBColor(64, 145, 108);
const MISSED: RGBColor = RGBColor(200, 82, 70);

/// Draws a report's ratios into `file`. A report without ratios gets no plot.
pub fn write(report: &Report, file: &Path) -> Result<()> {
    let bars: Vec<(&Figure, f64)> =
        report.figures.iter().filter_map(|figure| Some((figure, figure.ratio.as_ref()?.value))).collect();
    let rows = i32::try_from(bars.len())?;
    if rows == 0 {
        return Ok(());
    }
    let size = (u32::try_from(LABELS + WIDTH + EDGE)?, u32::try_from(TITLE + rows * BAR + BAR)?);
    draw(report, &bars, &SVGBackend::new(file, size).into_drawing_area())
        .with_context(|| format!("{} cannot be drawn", file.display()))
}

fn draw(report: &Report, bars: &[(&Figure, f64)], area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
    area.fill(&WHITE)?;
    let title = format!("{}: ratios to the baseline in the same run", report.program);
    area.draw(&Text::new(title, (12, 12), (FONT, 20).into_font().color(&BLACK)))?;
    let scale = f64::from(WIDTH) / bars.iter().map(|(_, ratio)| *ratio).fold(1.25, f64::max).min(WIDEST);
    let pixels = |ratio: f64| LABELS + (ratio.min(WIDEST) * scale).round() as i32;
    let mut top = TITLE;
    for (figure, ratio) in bars {
        let (middle, bottom) = (top + BAR / 2, top + BAR - 4);
        let label = format!("{}, {}", figure.name, figure.path);
        area.draw(&Text::new(label, (LABELS - 8, middle), text(HPos::Right)))?;
        let fill = match figure.passes() {
            Some(true) => MET,
            Some(false) => MISSED,
            None => PLAIN,
        };
        area.draw(&Rectangle::new([(LABELS, top + 4), (pixels(*ratio), bottom)], fill.filled()))?;
        let bounds = match figure.target {
            Some(Target::AtLeast(bound) | Target::AtMost(bound)) => vec![bound],
            Some(Target::Between(least, most)) => vec![least, most],
            None => Vec::new(),
        };
        for bound in bounds {
            let mark = [(pixels(bound), top + 1), (pixels(bound), bottom + 3)];
            area.draw(&PathElement::new(mark, BLACK.stroke_width(2)))?;
        }
        area.draw(&Text::new(format!("{ratio:.2}"), (pixels(*ratio) + 6, middle), text(HPos::Left)))?;
        top += BAR;
    }
    area.draw(&PathElement::new([(pixels(1.0), TITLE), (pixels(1.0), top)], PLAIN.stroke_width(1)))?;
    Ok(area.present()?)
}

fn text(side: HPos) -> TextStyle<'static> {
    (FONT, 15).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_ratio_is_a_bar_with_its_number_and_the_rest_is_left_out() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut report = Report::new("bulk", 1, "?", true)?;
        report
            .figures
            .push(Figure::new("1 stream", "ours", 7.0, "Gbit/s").of("TLS relay", 0.7).target(Target::AtLeast(0.85)));
        report.figures.push(Figure::new("fairness", "ours", 0.9, ""));
        let file = folder.path().join("bulk.svg");
        write(&report, &file)?;
        let drawn = fs::read_to_string(&file)?;
        assert!(drawn.starts_with("<svg") && drawn.contains("1 stream, ours") && drawn.contains("0.70"), "{drawn}");
        assert!(!drawn.contains("fairness"), "{drawn}");
        Ok(())
    }
}
