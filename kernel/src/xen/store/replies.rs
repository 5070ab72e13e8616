//! What the payloads of replies and events say. Pure.
//!
//! Formats: docs/misc/xenstore.txt, at each operation. Neighbours: [`super::wire`] cuts the messages out of the
//! stream, [`super::Store`] asks for them.

use super::error::StoreError;
use super::wire::TransactionId;
use alloc::string::String;
use alloc::vec::Vec;

/// The value of a node (READ).
///
/// # Errors
/// [`StoreError::Invalid`] when it is not UTF-8.
pub fn value(payload: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(payload).map_err(|_| StoreError::Invalid)
}

/// Names of children, each with a NUL behind it (DIRECTORY).
///
/// # Errors
/// [`StoreError::Protocol`] when one is not UTF-8.
pub fn names(payload: &[u8]) -> Result<Vec<String>, StoreError> {
    let names = payload.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(text).collect()
}

/// The number of a transaction in decimal, and a NUL (TRANSACTION_START).
///
/// # Errors
/// [`StoreError::Protocol`] when it is no number, or the one that means no transaction.
pub fn transaction(payload: &[u8]) -> Result<TransactionId, StoreError> {
    let (number, _) = string(payload).ok_or(StoreError::Protocol)?;
    let number = core::str::from_utf8(number).ok().and_then(|digits| digits.parse().ok());
    number.map(TransactionId).filter(|&id| id != TransactionId::NONE).ok_or(StoreError::Protocol)
}

/// Path and token of the watch, each with a NUL behind it (WATCH_EVENT).
///
/// # Errors
/// [`StoreError::Protocol`] when there are not two, or one is not UTF-8.
pub fn event(payload: &[u8]) -> Result<(String, String), StoreError> {
    let (path, rest) = string(payload).ok_or(StoreError::Protocol)?;
    let (token, _) = string(rest).ok_or(StoreError::Protocol)?;
    Ok((text(path)?, text(token)?))
}

/// A part of a list of children (DIRECTORY_PART).
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'payload> {
    /// Changes when the list does.
    pub generation: &'payload [u8],
    /// Names, each with a NUL behind it; the next part begins where these end.
    pub names: &'payload [u8],
    /// There is no next part: an empty string ended this one.
    pub last: bool,
}

/// Takes a part of a list apart.
///
/// # Errors
/// [`StoreError::Protocol`] when it does not end as a part must, or would not bring the list any further.
pub fn part(payload: &[u8]) -> Result<Part<'_>, StoreError> {
    let (generation, rest) = string(payload).ok_or(StoreError::Protocol)?;
    let (names, last) = match rest {
        [0] => (&[][..], true),
        [names @ .., 0] if names.ends_with(b"\0") => (names, true),
        [.., 0] => (rest, false),
        _ => return Err(StoreError::Protocol),
    };
    Ok(Part { generation, names, last })
}

/// Bytes up to the first NUL, and those behind it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn text(bytes: &[u8]) -> Result<String, StoreError> {
    core::str::from_utf8(bytes).map(String::from).map_err(|_| StoreError::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn directory_reply_becomes_names() {
        assert_eq!(names(b"vbd\0vif\0"), Ok(alloc::vec!["vbd".into(), "vif".into()]));
        assert_eq!(names(b""), Ok(Vec::new()));
    }

    #[test]
    fn event_has_path_and_token_and_may_have_more() {
        assert_eq!(event(b"backend/x\0t\0"), Ok(("backend/x".into(), "t".into())));
        assert_eq!(event(b"p\0\0more\0"), Ok(("p".into(), "".into())));
    }

    #[test]
    fn event_without_end_of_token_is_refused() {
        assert_eq!(event(b"path\0token"), Err(StoreError::Protocol));
        assert_eq!(event(b""), Err(StoreError::Protocol));
    }

    #[test]
    fn transaction_zero_is_none_and_refused() {
        assert_eq!(transaction(b"17\0"), Ok(TransactionId(17)));
        assert_eq!(transaction(b"0\0"), Err(StoreError::Protocol));
        assert_eq!(transaction(b"4294967296\0"), Err(StoreError::Protocol));
        assert_eq!(transaction(b"17"), Err(StoreError::Protocol));
    }

    #[test]
    fn last_part_is_told_from_one_in_the_middle() {
        assert_eq!(part(b"5\0a\0b\0\0"), Ok(Part { generation: b"5", names: b"a\0b\0", last: true }));
        assert_eq!(part(b"5\0a\0b\0"), Ok(Part { generation: b"5", names: b"a\0b\0", last: false }));
        assert_eq!(part(b"5\0\0"), Ok(Part { generation: b"5", names: b"", last: true }));
    }

    #[test]
    fn part_that_cannot_bring_the_list_further_is_refused() {
        assert_eq!(part(b"5\0"), Err(StoreError::Protocol));
        assert_eq!(part(b"5\0a"), Err(StoreError::Protocol));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = (names(&bytes), transaction(&bytes), event(&bytes), part(&bytes));
            let _ = (StoreError::from_reply(&bytes), value(bytes));
        }
    }
}
