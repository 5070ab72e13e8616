//! What a benchmark says of its run: tables, with words between them, and remarks on how it was measured.

use super::table::Table;

/// A report, in the order in which it was told.
#[derive(Default)]
pub struct Report {
    parts: Vec<Part>,
    remarks: String,
    pictures: Vec<Picture>,
}

enum Part {
    Table { title: String, table: Table },
    Words(String),
}

/// A picture, as SVG, and the name of its file.
pub struct Picture {
    /// With its suffix.
    pub name: &'static str,
    /// The whole file.
    pub svg: String,
}

impl Report {
    /// Adds a table under a title, which is empty when the table says it all.
    pub fn table(&mut self, title: &str, table: Table) {
        self.parts.push(Part::Table { title: title.to_owned(), table });
    }

    /// Adds whole lines.
    pub fn say(&mut self, lines: &str) {
        if !lines.is_empty() {
            self.parts.push(Part::Words(lines.trim_end().to_owned() + "\n"));
        }
    }

    /// Lines under the configuration: a word to align with its words, then how that was.
    pub fn remark(&mut self, lines: &str) {
        self.remarks += &format!("{}\n", lines.trim_end());
    }

    /// Adds a picture.
    pub fn picture(&mut self, name: &'static str, svg: String) {
        self.pictures.push(Picture { name, svg });
    }

    /// The pictures.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// All but the pictures, with `configuration` before the remarks.
    pub fn text(&self, configuration: &str) -> String {
        let mut text = String::new();
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Table { title, table } => {
                    if index > 0 {
                        text.push('\n');
                    }
                    if !title.is_empty() {
                        text += &format!("{title}\n\n");
                    }
                    text += &table.text();
                }
                Part::Words(words) => text += words,
            }
        }
        format!("{text}\n{configuration}{}", self.remarks)
    }
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::bench::table::{Table, number};

    #[test]
    fn words_belong_to_the_table_before_them() {
        let mut report = Report::default();
        for title in ["", "Again"] {
            let mut table = Table::new(&["a", "b"]);
            table.row("c", [number(1.0, 0)]);
            report.table(title, table);
            report.say("(so it is)");
        }
        report.remark("guest    one");
        assert_eq!(
            report.text("time     none\n"),
            "a  b\n----\nc  1\n(so it is)\n\nAgain\n\na  b\n----\nc  1\n(so it is)\n\ntime     none\nguest    one\n"
        );
    }
}
