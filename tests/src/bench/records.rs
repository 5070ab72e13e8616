//! What a run wrote down: lines of a word and `key=value` pairs.
//!
//! `bench name=… …` is a result; `mark guest=… name=CASE.begin dom-NAME=NS …` is every domain's processor time at a moment, given by
//! Dom0 when a guest asked for it; `counters guest=… name=CASE.begin KEY=NUMBER …` is what the driver domain had counted then.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};

/// The case in which nothing happens: what marks themselves cost.
const NOTHING: &str = "none";

/// The lines of a run.
#[derive(Default)]
pub struct Records {
    lines: Vec<String>,
}

/// One line's pairs.
pub struct Record<'a>(HashMap<&'a str, &'a str>);

impl Records {
    /// Takes the next line.
    pub fn take(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }

    /// All lines as they came.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The results called `name`, of `guest` when there are several, in order.
    pub fn all<'a>(&'a self, guest: Option<&str>, name: &str) -> Vec<Record<'a>> {
        let mut records = self.of("bench ");
        records.retain(|record| {
            record.text("name") == name && guest.is_none_or(|guest| record.text("guest") == guest)
        });
        records
    }

    /// The one result called `name`.
    pub fn one<'a>(&'a self, guest: Option<&str>, name: &str) -> Result<Record<'a>> {
        self.all(guest, name)
            .into_iter()
            .next()
            .with_context(|| format!("the run has no result {name} ({guest:?})"))
    }

    /// The processor time of `domain` between the marks around case `name` of `guest`, without that of the marks.
    pub fn used_ns(&self, guest: &str, name: &str, domain: &str) -> Result<f64> {
        Ok(self.between_marks(guest, name, domain)? - self.between_marks(guest, NOTHING, domain)?)
    }

    /// By how much each of the driver domain's counters grew around case `name` of `guest`; nothing when nobody asked for them.
    pub fn counted(&self, guest: &str, name: &str) -> BTreeMap<&str, f64> {
        let at = |moment: &str| {
            let moment = format!("{name}.{moment}");
            let mut records = self.of("counters ").into_iter();
            records.find(|record| record.text("guest") == guest && record.text("name") == moment)
        };
        let (Some(begin), Some(end)) = (at("begin"), at("end")) else { return BTreeMap::new() };
        let growth = |key: &str| Some(end.number(key).ok()? - begin.number(key).ok()?);
        begin.0.keys().filter_map(|&key| Some((key, growth(key)?))).collect()
    }

    fn between_marks(&self, guest: &str, name: &str, domain: &str) -> Result<f64> {
        let at = |moment: &str| {
            let mark = format!("{name}.{moment}");
            let found = self
                .of("mark ")
                .into_iter()
                .find(|record| record.text("guest") == guest && record.text("name") == mark);
            found
                .with_context(|| format!("the run has no mark {mark} of {guest}"))?
                .number(&format!("dom-{domain}"))
        };
        Ok(at("end")? - at("begin")?)
    }

    fn of(&self, word: &str) -> Vec<Record<'_>> {
        let lines = self.lines.iter().filter_map(|line| line.trim_end().strip_prefix(word));
        lines.map(|line| Record(line.split(' ').filter_map(|pair| pair.split_once('=')).collect())).collect()
    }
}

impl Record<'_> {
    /// The value of `key`, empty when there is none.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// The number at `key`.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.text(key).parse().with_context(|| format!("a result's {key} is no number: `{}`", self.text(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::Records;

    fn records() -> Records {
        let mut records = Records::default();
        for line in [
            "Parsing config from /tmp/guest.cfg",
            "mark guest=g name=none.begin dom-g=100",
            "mark guest=g name=none.end dom-g=110",
            "mark guest=g name=read.begin dom-g=200",
            "mark guest=g name=read.end dom-g=260",
            "bench guest=g name=read requests=5 median_ns=12\r",
            "counters guest=g name=read.begin hits=3 misses=4",
            "counters guest=g name=read.end hits=10 misses=4 new=1",
        ] {
            records.take(line);
        }
        records
    }

    #[test]
    fn results_are_found_by_guest_and_name() {
        let records = records();
        assert!((records.one(Some("g"), "read").unwrap().number("median_ns").unwrap() - 12.0).abs() < 0.1);
        assert!(records.one(Some("h"), "read").is_err());
    }

    #[test]
    fn counters_tell_their_growth() {
        let records = records();
        let counted = records.counted("g", "read");
        assert_eq!(counted.keys().copied().collect::<Vec<_>>(), ["hits", "misses"]);
        assert!((counted["hits"] - 7.0).abs() < 0.1 && counted["misses"].abs() < 0.1);
        assert!(records.counted("g", "write").is_empty());
    }

    #[test]
    fn marks_do_not_count_themselves() {
        assert!((records().used_ns("g", "read", "g").unwrap() - 50.0).abs() < 0.1);
    }
}
