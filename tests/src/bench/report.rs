//! What a benchmark says of its run: tables, with words between them, and remarks on how it was measured.

use anyhow::{Result, bail};
use serde_json::{Value, json};

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

    /// One report of several runs: numbers are medians, words and pictures those of the last run.
    pub fn of_runs(mut runs: Vec<Self>) -> Result<Self> {
        let count = runs.len();
        let mut tables: Vec<Table> = Vec::new();
        for index in 0..runs.iter().map(|run| run.tables().count()).max().unwrap_or(0) {
            let same: Vec<&Table> = runs.iter().filter_map(|run| Some(run.tables().nth(index)?.1)).collect();
            if same.len() != count {
                bail!("the runs have different tables");
            }
            tables.push(Table::of_runs(&same)?);
        }
        let mut merged = runs.pop().unwrap_or_default();
        let parts = merged.parts.iter_mut().filter_map(|part| match part {
            Part::Table { table, .. } => Some(table),
            Part::Words(_) => None,
        });
        for (part, table) in parts.zip(tables) {
            *part = table;
        }
        if count > 1 {
            merged.remark(&format!(
                "runs     {count}: each number is the median of these; spread: the most less the least over the median, of the row's number \
                 that differs most"
            ));
        }
        Ok(merged)
    }

    /// The tables with their titles.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &Table)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Table { title, table } => Some((title.as_str(), table)),
            Part::Words(_) => None,
        })
    }

    /// All but the pictures, for programs.
    pub fn json(&self, benchmark: &str, configuration: &Value) -> Value {
        let tables: Vec<Value> = self.tables().map(|(title, table)| table.json(title)).collect();
        let words = self.parts.iter().filter_map(|part| match part {
            Part::Table { .. } => None,
            Part::Words(words) => Some(words.trim()),
        });
        json!({
            "benchmark": benchmark,
            "configuration": configuration,
            "tables": tables,
            "words": words.collect::<Vec<_>>(),
            "remarks": self.remarks.lines().collect::<Vec<_>>(),
        })
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
    use serde_json::json;

    use super::Report;
    use crate::bench::table::{Table, number};

    fn report(value: f64, words: &str) -> Report {
        let mut table = Table::new(&["a", "b"]);
        table.row("c", [number(value, 0)]);
        let mut report = Report::default();
        report.say(words);
        report.table("title", table);
        report
    }

    #[test]
    fn runs_become_one_report() {
        let merged = Report::of_runs(vec![report(1.0, "first"), report(3.0, "last")]).unwrap();
        let text = merged.text("");
        assert!(text.starts_with("last\n\ntitle\n\na  b  spread, %\n"), "{text}");
        assert!(text.contains("\nc  2      100.0\n") && text.contains("\nruns     2: "), "{text}");
        assert!(Report::of_runs(vec![report(1.0, ""), Report::default()]).is_err());
    }

    #[test]
    fn programs_get_tables_words_and_configuration() {
        let json = report(1.5, "said").json("disk", &json!({ "cpu": "cortex-a57" }));
        assert_eq!(json["benchmark"], "disk");
        assert_eq!(json["configuration"]["cpu"], "cortex-a57");
        assert_eq!(json["tables"][0]["title"], "title");
        assert_eq!(json["tables"][0]["rows"][0]["cells"], json!([1.5]));
        assert_eq!(json["words"], json!(["said"]));
    }

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
