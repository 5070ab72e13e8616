//! Tests of the wire: what is sent byte by byte, what is refused, and that no bytes that come in do harm.

use super::*;
use alloc::string::String;
use proptest::prelude::*;

/// A message as the server would write it.
fn raw(operation: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let words = [operation, request, 0, u32::try_from(payload.len()).unwrap()];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(payload);
    bytes
}

/// What comes out when `stream` goes in, in pieces that end at `cuts`.
fn assemble(stream: &[u8], cuts: &[usize]) -> Result<Vec<Incoming>, StoreError> {
    let mut assembler = Assembler::default();
    let mut messages = Vec::new();
    let mut rest = stream;
    for length in cuts.iter().copied().chain([stream.len()]) {
        let (mut piece, behind) = rest.split_at(length.min(rest.len()));
        while let Some(message) = assembler.feed(&mut piece)? {
            messages.push(message);
        }
        rest = behind;
    }
    Ok(messages)
}

#[test]
fn read_is_a_header_and_a_terminated_path() {
    let message = Message::about_path(Operation::Read, TransactionId(7), "domid").unwrap();
    let expected = b"\x02\0\0\0\x09\0\0\0\x07\0\0\0\x06\0\0\0domid\0";
    assert_eq!(message.encode(RequestId(9)), expected);
}

#[test]
fn write_does_not_terminate_the_value() {
    let message = Message::write(TransactionId::NONE, "a/state", b"4").unwrap();
    assert_eq!(message.payload, b"a/state\x004");
}

#[test]
fn watch_has_path_and_token() {
    let message = Message::watch(Operation::Watch, "@releaseDomain", "tok").unwrap();
    assert_eq!(message.payload, b"@releaseDomain\0tok\0");
    assert_eq!(message.transaction, TransactionId::NONE);
}

#[test]
fn words_are_as_xenstore_txt_has_them() {
    assert_eq!(Message::transaction_start().payload, b"\0");
    assert_eq!(Message::reset_watches().payload, b"\0");
    assert_eq!(Message::commit(TransactionId(3)).payload, b"T\0");
    assert_eq!(Message::abort(TransactionId(3)).payload, b"F\0");
    assert_eq!(Message::directory_part(TransactionId(3), "a", 12).unwrap().payload, b"a\x0012\0");
}

#[test]
fn path_that_would_change_the_message_is_refused() {
    let read = |path| Message::about_path(Operation::Read, TransactionId::NONE, path);
    assert_eq!(read(""), Err(StoreError::Invalid));
    assert_eq!(read("a\0b"), Err(StoreError::Invalid));
    assert_eq!(read("a b"), Err(StoreError::Invalid));
    assert_eq!(Message::watch(Operation::Watch, "a", "t\0u"), Err(StoreError::Invalid));
}

#[test]
fn path_as_long_as_allowed_is_taken_and_no_longer() {
    let read = |path: &str| Message::about_path(Operation::Read, TransactionId::NONE, path).map(drop);
    assert_eq!(read(&"x".repeat(2048)), Ok(()));
    assert_eq!(read(&"x".repeat(2049)), Err(StoreError::TooLong));
    assert_eq!(read(&"/".repeat(3072)), Ok(()));
    assert_eq!(read(&"/".repeat(3073)), Err(StoreError::TooLong));
}

#[test]
fn payload_as_long_as_allowed_is_taken_and_no_longer() {
    let write = |length| Message::write(TransactionId::NONE, "path", &alloc::vec![b'v'; length]);
    assert_eq!(write(4091).unwrap().payload.len(), PAYLOAD_MAX);
    assert_eq!(write(4092), Err(StoreError::TooLong));
}

#[test]
fn longest_path_and_token_make_the_longest_payload() {
    let path = "/".repeat(ABSOLUTE_PATH_MAX);
    let watch = |length| Message::watch(Operation::Watch, &path, &"t".repeat(length));
    assert_eq!(watch(TOKEN_MAX).unwrap().payload.len(), PAYLOAD_MAX);
    assert_eq!(watch(TOKEN_MAX + 1), Err(StoreError::TooLong));
}

#[test]
fn payload_of_the_greatest_length_is_assembled() {
    let messages = assemble(&raw(2, 1, &[b'v'; PAYLOAD_MAX]), &[]).unwrap();
    assert_eq!(messages[0].payload.len(), PAYLOAD_MAX);
}

#[test]
fn length_above_the_greatest_is_refused_before_the_payload_is_there() {
    let bytes = raw(2, 1, &[b'v'; PAYLOAD_MAX + 1]);
    assert_eq!(assemble(&bytes[..HEADER_BYTES], &[]), Err(StoreError::Protocol));
}

#[test]
fn message_without_payload_is_complete_with_its_header() {
    let messages = assemble(&[raw(1, 5, b""), raw(77, 6, b"")].concat(), &[]).unwrap();
    assert_eq!(messages[0].operation, Some(Operation::Directory));
    assert_eq!(messages[1].operation, None);
    assert_eq!(messages[1].request, RequestId(6));
}

#[test]
fn error_names_become_errors() {
    assert_eq!(StoreError::from_reply(b"ENOENT\0"), StoreError::NotFound);
    assert_eq!(StoreError::from_reply(b"EAGAIN\0"), StoreError::Again);
    assert_eq!(StoreError::from_reply(b"EACCES\0"), StoreError::Denied);
    assert_eq!(StoreError::from_reply(b"EQUOTA\0"), StoreError::Quota);
    assert_eq!(StoreError::from_reply(b"E2BIG"), StoreError::TooLong);
    assert_eq!(StoreError::from_reply(b"EWHATEVER\0"), StoreError::Other);
    assert_eq!(StoreError::from_reply(b""), StoreError::Other);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes: Vec<u8>, cuts in proptest::collection::vec(0usize..40, 0..10)) {
        let _ = assemble(&bytes, &cuts);
    }

    #[test]
    fn any_strings_make_a_message_within_limits_or_none(path: String, token: String, value: Vec<u8>) {
        let write = Message::write(TransactionId::NONE, &path, &value);
        let watch = Message::watch(Operation::Watch, &path, &token);
        for message in [write, watch].into_iter().flatten() {
            prop_assert!(message.payload.len() <= PAYLOAD_MAX);
        }
    }

    #[test]
    fn what_is_encoded_is_assembled_however_it_is_cut(
        path in "[a-z/]{1,40}",
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
        cuts in proptest::collection::vec(0usize..60, 0..30),
    ) {
        let sent: Vec<Message> =
            values.iter().map(|value| Message::write(TransactionId(4), &path, value).unwrap()).collect();
        let stream: Vec<u8> = sent.iter().flat_map(|message| message.encode(RequestId(11))).collect();
        let received = assemble(&stream, &cuts).unwrap();
        prop_assert_eq!(received.len(), sent.len());
        for (received, sent) in received.into_iter().zip(sent) {
            prop_assert_eq!(received.operation, Some(Operation::Write));
            prop_assert_eq!(received.request, RequestId(11));
            prop_assert_eq!(received.payload, sent.payload);
        }
    }
}
