//! The table of what the driver domain counted, per request: whatever it tells when it is asked (`tests/bench/marks.sh`).

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Records, Table, number};

/// The counters that changed in any of the cases of `guest`, per request; none when it counted nothing.
pub fn table(records: &Records, guest: &str, cases: &[(&str, &str)]) -> Result<Option<Table>> {
    let counted: Vec<_> = cases.iter().map(|(_, name)| records.counted(guest, name)).collect();
    let of_all = counted.iter().flatten().filter(|(_, growth)| **growth != 0.0);
    let keys: BTreeSet<&str> = of_all.map(|(key, _)| *key).collect();
    if keys.is_empty() {
        return Ok(None);
    }
    let titles: Vec<String> = keys.iter().map(|key| key.replace('_', " ")).collect();
    let heading: Vec<&str> =
        std::iter::once("counted, per request").chain(titles.iter().map(String::as_str)).collect();
    let mut table = Table::new(&heading);
    for ((title, name), counted) in cases.iter().zip(&counted) {
        let requests = records.one(Some(guest), name)?.number("requests")?;
        table.row(
            title,
            keys.iter().map(|key| number(counted.get(key).copied().unwrap_or(0.0) / requests, 3)),
        );
    }
    Ok(Some(table))
}

#[cfg(test)]
mod tests {
    use super::{Records, table};

    #[test]
    fn what_never_changed_has_no_column() {
        let mut records = Records::default();
        for line in [
            "bench guest=g name=read requests=4 median_ns=1",
            "counters guest=g name=read.begin hits=3 map_calls=0",
            "counters guest=g name=read.end hits=5 map_calls=0",
        ] {
            records.take(line);
        }
        let table = table(&records, "g", &[("a read", "read")]).unwrap().unwrap();
        assert_eq!(
            table.text(),
            "counted, per request   hits\n---------------------------\na read                0.500\n"
        );
    }
}
