//! How far a request of ours is from what nobody can have it for: the same on a disk in the guest's own RAM, and the accesses to registers
//! that the guest's driver makes, each of which Xen brings to another domain and back.

use anyhow::Result;

use super::{Records, Table, disk, number};

/// What one access costs a guest with Linux, µs, of which 0.2 are ours: `bench ioreq`.
const TRIP_US: f64 = 12.7;

/// The remark on it.
pub const REMARK: &str = "left     what is neither the floor, which has one copy of the data in it, nor accesses to registers, 12.7 µs each (`bench ioreq`): \
     the guest's interrupts and switches of domains, virtqueues, our part, and the copy of what is beyond the floor's";

/// A row for each case; none when the driver domain was not asked what it counted.
pub fn table(records: &Records, guest: &str, cases: &[(&str, &str)]) -> Result<Option<Table>> {
    let mut table =
        Table::new(&["one request, virtual µs", "ours", "floor", "accesses", "for these", "left"]);
    for (title, name) in cases {
        let counted = records.counted(guest, name);
        let Some(accesses) = counted.get("accesses") else { return Ok(None) };
        let accesses = accesses / records.one(Some(guest), name)?.number("requests")?;
        let (ours, floor) =
            (disk::median_us(records, guest, name)?, disk::median_us(records, "floor", name)?);
        let trips = accesses * TRIP_US;
        table.row(
            title,
            [
                number(ours, 1),
                number(floor, 1),
                number(accesses, 2),
                number(trips, 1),
                number(ours - floor - trips, 1),
            ],
        );
    }
    Ok(Some(table))
}

#[cfg(test)]
mod tests {
    use super::{Records, table};

    #[test]
    fn what_is_left_is_without_floor_and_accesses() {
        let mut records = Records::default();
        for line in [
            "bench guest=ours name=read requests=10 median_ns=60000",
            "bench guest=floor name=read requests=10 median_ns=5000",
            "counters guest=ours name=read.begin accesses=100",
            "counters guest=ours name=read.end accesses=130",
        ] {
            records.take(line);
        }
        let text = table(&records, "ours", &[("a read", "read")]).unwrap().unwrap().text();
        assert!(
            text.ends_with("a read                   60.0    5.0      3.00       38.1  16.9\n"),
            "{text}"
        );
    }
}
