//! What guests say that they have made to last.
//!
//! A guest writes a record, waits for the disk to have flushed it, and only then says so on its console:
//!
//! ```text
//! synced bytes AT LENGTH SHA256       of its first volume
//! synced file NAME SHA256             in the root of the file system on its second
//! ```

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Bytes of a volume.
    Bytes {
        /// Where in the volume.
        at: usize,
        /// How many.
        length: usize,
        /// Their SHA-256.
        sum: String,
    },
    /// A file.
    File {
        /// Its name.
        name: String,
        /// Its content's SHA-256.
        sum: String,
    },
}

/// A record that a guest says is safe.
#[derive(Clone, Debug)]
pub struct Report {
    /// The record.
    pub record: Record,
    /// How long the disk's log was when the host heard of it: had the power gone then, this much of the log would have been all.
    pub log_bytes: usize,
}

impl Record {
    /// The record that `line` of a console reports, if it does; a line that the cut tore does not.
    pub fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let record = match words[..] {
            ["synced", "bytes", at, length, sum] => {
                Self::Bytes { at: at.parse().ok()?, length: length.parse().ok()?, sum: checked(sum)? }
            }
            ["synced", "file", name, sum] => Self::File { name: name.to_owned(), sum: checked(sum)? },
            _ => return None,
        };
        Some(record)
    }
}

fn checked(sum: &str) -> Option<String> {
    (sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| sum.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn a_line_counts_only_when_it_is_whole() {
        let sum = "5f".repeat(32);
        assert_eq!(
            Record::read(&format!("synced bytes 4096 8192 {sum}\r")),
            Some(Record::Bytes { at: 4096, length: 8192, sum: sum.clone() })
        );
        assert_eq!(
            Record::read(&format!("synced file 17 {sum}")),
            Some(Record::File { name: "17".into(), sum: sum.clone() })
        );
        assert_eq!(Record::read(&format!("synced file 17 {}", &sum[1..])), None);
        assert_eq!(Record::read("synced bytes 4096"), None);
        assert_eq!(Record::read("guest: the job ended with status 0"), None);
    }
}
