//! A table of aligned columns: the first is text, to the left; the others are mostly numbers, to the right.

/// The rows so far, under a heading.
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Row>,
}

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
    fn text(&self) -> String {
        match self {
            Self::Number(value, digits) => rounded(*value, *digits),
            Self::Text(text) => text.clone(),
        }
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
    use super::{Table, number, rounded};

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
