//! A table of aligned columns: the first is text, to the left; the others are numbers, to the right.

/// The rows so far, the first of which is the heading.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading.
    pub fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        self.rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            format!("{}\n", cells.collect::<String>().trim_end())
        };
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
        lines.insert(1, format!("{rule}\n"));
        lines.concat()
    }
}

/// A number with `digits` after the point.
pub fn number(value: f64, digits: usize) -> String {
    // What rounds to zero from below is zero.
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(positive) if positive.chars().all(|letter| matches!(letter, '0' | '.')) => positive.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, number};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["case", "µs"]);
        table.row("a long one", ["7.25".into()]);
        assert_eq!(table.text(), "case          µs\n----------------\na long one  7.25\n");
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(number(-0.01, 1), "0.0");
        assert_eq!(number(-0.6, 1), "-0.6");
    }
}
