//! A table of aligned columns: the first is text, to the left; the others are mostly numbers, to the right.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// How a heading begins that is over ratios to a peer of ours.
const RATIO: &str = "ours/";

/// The rows so far, under a heading.
#[derive(Clone, Debug)]
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    cells: Vec<Cell>,
}

/// What stands in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A number, told with so many digits after the point.
    Number(f64, usize),
    /// Anything else.
    Text(String),
}

impl Table {
    /// A table with a heading.
    pub fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, name: &str, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(Row { name: name.to_owned(), cells: cells.into_iter().collect() });
    }

    /// One table of several runs' same table: each number is their median, and a last column tells how far they are apart.
    pub fn of_runs(runs: &[&Self]) -> Result<Self> {
        let Some((&first, others)) = runs.split_first() else { return Ok(Self::new(&[])) };
        if others.is_empty() {
            return Ok(first.clone());
        }
        let names = |table: &Self| table.rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
        ensure!(others.iter().all(|other| names(other) == names(first)), "the runs have different rows");
        let mut merged = Self { heading: first.heading.clone(), rows: Vec::new() };
        merged.heading.push("spread, %".to_owned());
        for (index, row) in first.rows.iter().enumerate() {
            let of_runs =
                |column: usize| runs.iter().filter_map(move |run| run.rows.get(index)?.cells.get(column));
            let mut cells: Vec<Cell> =
                (0..row.cells.len()).map(|column| Cell::of_runs(of_runs(column))).collect();
            let spreads = (0..row.cells.len()).map(|column| spread(&numbers(of_runs(column))));
            // Rows may be short: the last column is under its heading nevertheless.
            cells.resize_with(first.heading.len().saturating_sub(1), || text(""));
            cells.push(number(100.0 * spreads.fold(0.0, f64::max), 1));
            merged.rows.push(Row { name: row.name.clone(), cells });
        }
        Ok(merged)
    }

    /// The ratios to peers of ours: each row's name, the peer's, the ratio.
    pub fn ratios(&self) -> Vec<(&str, &str, f64)> {
        let mut ratios = Vec::new();
        for row in &self.rows {
            for (heading, cell) in self.heading.iter().skip(1).zip(&row.cells) {
                if let (Some(peer), Cell::Number(value, _)) = (heading.strip_prefix(RATIO), cell) {
                    ratios.push((row.name.trim(), peer, *value));
                }
            }
        }
        ratios
    }

    /// The rows' names and their numbers in the columns `headings`, of those rows that have all of these: what pictures show.
    pub fn columns(&self, headings: &[&str]) -> Vec<(String, Vec<f64>)> {
        let place = |heading: &&str| self.heading.iter().skip(1).position(|other| other == heading);
        let value = |row: &Row, column: Option<usize>| match row.cells.get(column?)? {
            Cell::Number(value, _) => Some(*value),
            Cell::Text(_) => None,
        };
        let values =
            |row: &Row| headings.iter().map(|heading| value(row, place(heading))).collect::<Option<_>>();
        self.rows.iter().filter_map(|row| Some((row.name.clone(), values(row)?))).collect()
    }

    /// The table for programs: its numbers as they were measured, not as they are told.
    pub fn json(&self, title: &str) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| json!({ "name": row.name.trim(), "cells": row.cells.iter().map(Cell::json).collect::<Vec<_>>() }))
            .collect();
        json!({ "title": title, "columns": self.heading, "rows": rows })
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let rows: Vec<Vec<String>> = std::iter::once(self.heading.clone())
            .chain(self.rows.iter().map(|row| {
                std::iter::once(row.name.clone()).chain(row.cells.iter().map(Cell::text)).collect()
            }))
            .collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            format!("{}\n", cells.collect::<String>().trim_end())
        };
        let mut lines: Vec<String> = rows.iter().map(line).collect();
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
        lines.insert(1, format!("{rule}\n"));
        lines.concat()
    }
}

impl Cell {
    /// The median of numbers; all that was said otherwise.
    fn of_runs<'a>(cells: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let digits = cells.clone().find_map(|cell| match cell {
            Self::Number(_, digits) => Some(*digits),
            Self::Text(_) => None,
        });
        match (digits, median(&numbers(cells.clone()))) {
            (Some(digits), Some(median)) => Self::Number(median, digits),
            _ => {
                let mut said: Vec<String> = cells.map(Self::text).collect();
                said.dedup();
                Self::Text(said.join(" or "))
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Number(value, _) => json!(value),
            Self::Text(text) => json!(text),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Number(value, digits) => rounded(*value, *digits),
            Self::Text(text) => text.clone(),
        }
    }
}

/// The numbers among them, from the least to the most.
fn numbers<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<f64> {
    let mut numbers: Vec<f64> = cells
        .filter_map(|cell| match cell {
            Cell::Number(value, _) => Some(*value),
            Cell::Text(_) => None,
        })
        .collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

/// Of sorted numbers; of an even count, the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// How far sorted numbers are apart: the most less the least, as a share of the median.
fn spread(sorted: &[f64]) -> f64 {
    match (sorted.first(), sorted.last(), median(sorted)) {
        (Some(least), Some(most), Some(median)) if most > least => (most - least) / median.abs(),
        _ => 0.0,
    }
}

/// A cell with a number, told with `digits` after the point.
pub fn number(value: f64, digits: usize) -> Cell {
    Cell::Number(value, digits)
}

/// A cell with anything else.
pub fn text(value: &(impl ToString + ?Sized)) -> Cell {
    Cell::Text(value.to_string())
}

/// A number with `digits` after the point.
pub fn rounded(value: f64, digits: usize) -> String {
    // What rounds to zero from below is zero.
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(positive) if positive.chars().all(|letter| matches!(letter, '0' | '.')) => positive.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Cell, Table, number, rounded, spread, text};

    fn table(ours: f64, words: &str) -> Table {
        let mut table = Table::new(&["case", "ours", "ours/theirs", "said"]);
        table.row("  one", [number(ours, 1), number(ours / 2.0, 2), text(words)]);
        table.row("short", [number(7.0, 0)]);
        table
    }

    #[test]
    fn the_spread_is_a_share_of_the_median() {
        assert!((spread(&[9.0, 10.0, 12.0]) - 0.3).abs() < 1e-9);
        assert!((spread(&[9.0, 11.0]) - 0.2).abs() < 1e-9);
        assert_eq!([spread(&[]), spread(&[5.0]), spread(&[0.0, 0.0])], [0.0; 3]);
    }

    #[test]
    fn runs_are_told_by_their_medians() {
        let runs = [table(10.0, "yes"), table(12.0, "no"), table(11.0, "no")];
        let merged = Table::of_runs(&runs.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(
            merged.rows[0].cells,
            [number(11.0, 1), number(5.5, 2), text("yes or no"), number(100.0 * 2.0 / 11.0, 1)]
        );
        assert_eq!(merged.rows[1].cells, [number(7.0, 0), text(""), text(""), number(0.0, 1)]);
        assert_eq!(merged.heading.last().unwrap(), "spread, %");
    }

    #[test]
    fn one_run_has_no_spread() {
        assert_eq!(Table::of_runs(&[&table(1.0, "")]).unwrap().text(), table(1.0, "").text());
    }

    #[test]
    fn runs_with_other_rows_are_refused() {
        let mut other = table(1.0, "");
        other.row("more", [number(1.0, 0)]);
        assert!(Table::of_runs(&[&table(1.0, ""), &other]).is_err());
    }

    #[test]
    fn ratios_are_found_by_their_heading() {
        assert_eq!(table(10.0, "").ratios(), [("one", "theirs", 5.0)]);
    }

    #[test]
    fn columns_are_of_rows_that_have_all_of_them() {
        let table = table(10.0, "");
        assert_eq!(table.columns(&["ours", "ours/theirs"]), [("  one".to_owned(), vec![10.0, 5.0])]);
        assert_eq!(table.columns(&["ours"]).len(), 2);
        assert!(table.columns(&["nobody's"]).is_empty());
    }

    #[test]
    fn programs_get_unrounded_numbers() {
        assert_eq!(Cell::Number(1.26, 1).json(), json!(1.26));
        let table = table(10.26, "yes").json("Title");
        assert_eq!(table["columns"][1], json!("ours"));
        assert_eq!(table["rows"][0], json!({ "name": "one", "cells": [10.26, 5.13, "yes"] }));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["case", "µs"]);
        table.row("a long one", [number(7.25, 2)]);
        assert_eq!(table.text(), "case          µs\n----------------\na long one  7.25\n");
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(rounded(-0.01, 1), "0.0");
        assert_eq!(rounded(-0.6, 1), "-0.6");
    }
}
