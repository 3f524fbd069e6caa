//! Tables like kubectl's: left-aligned columns three spaces apart, upper-case headings, no rules.

use std::fmt::Write;

use anstyle::Style;
use process::Escaped;

use crate::output::HEADING;

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// One field and how it looks. An empty one shows as `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

const GAP: usize = 3;

impl Table {
    pub(crate) fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row with a cell for each heading.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Every line but the last ends with a newline.
    pub(crate) fn render(&self) -> String {
        let headings: Vec<Cell> = self.headings.iter().map(|heading| Cell::styled(*heading, HEADING)).collect();
        let widths: Vec<usize> = (0..headings.len()).map(|column| self.width(column)).collect();
        let lines = std::iter::once(&headings).chain(&self.rows).map(|row| line(row, &widths));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width);
        cells.max().unwrap_or(0).max(self.headings[column].len())
    }
}

fn line(row: &[Cell], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let style = cell.style;
        // The last column is not padded: no line ends in spaces.
        let padding = if column + 1 == row.len() { 0 } else { width - cell.width() + GAP };
        write!(line, "{style}{}{style:#}{:padding$}", cell.shown(), "").expect("writing to a String cannot fail");
    }
    line
}

impl Cell {
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        // Some texts are an agent's, or another user's.
        Self { text: Escaped(text.into()).to_string(), style }
    }

    fn shown(&self) -> &str {
        if self.text.is_empty() { "-" } else { &self.text }
    }

    fn width(&self) -> usize {
        self.shown().chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::GOOD;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_whatever_its_colour() {
        let mut table = Table::new(&["NAME", "UP", "SEEN"]);
        table.row(["cluster1".into(), Cell::styled("true", GOOD), "now".into()]);
        table.row(["c2".into(), "".into(), "3m ago".into()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "NAME       UP     SEEN\ncluster1   true   now\nc2         -      3m ago");
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        let plain = anstream::adapter::strip_str(&Table::new(&["A", "B"]).render()).to_string();
        assert_eq!(plain, "A   B");
    }
}
