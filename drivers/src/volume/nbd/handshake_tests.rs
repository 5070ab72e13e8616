//! Handshakes with servers of every kind.

use super::*;
use crate::volume::nbd::wire::ExportFlags;
use std::vec;

fn greeting(flags: u16) -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
}

fn answer(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
    [&magic[..], &7_u32.to_be_bytes(), &kind.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// NBD_INFO_EXPORT.
fn size(bytes: u64, flags: u16) -> Vec<u8> {
    answer(3, &[&0_u16.to_be_bytes()[..], &bytes.to_be_bytes(), &flags.to_be_bytes()].concat())
}

/// NBD_INFO_BLOCK_SIZE.
fn sizes(minimum: u32, payload: u32) -> Vec<u8> {
    let numbers = [minimum, 4096, payload].map(u32::to_be_bytes).concat();
    answer(3, &[&3_u16.to_be_bytes()[..], &numbers].concat())
}

/// Hears all of `said`, `most` bytes at a time. Returns the outcome, what was answered and what was not heard.
fn shake(said: &[u8], most: usize) -> (Result<Option<Export>, NbdError>, Vec<u8>, usize) {
    let mut handshake = Handshake::new("disk");
    let (mut said, mut answered) = (said, Vec::new());
    loop {
        let mut left = most;
        let outcome = handshake.receive(|room| {
            let taken = room.len().min(left).min(said.len());
            let (now, later) = said.split_at(taken);
            room[..taken].copy_from_slice(now);
            said = later;
            left -= taken;
            taken
        });
        answered.extend_from_slice(handshake.to_send());
        handshake.sent(handshake.to_send().len());
        if outcome != Ok(None) || said.is_empty() {
            return (outcome, answered, said.len());
        }
    }
}

const GO: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x0c\0\0\0\x04disk\0\x01\0\x03";

#[test]
fn an_export_is_asked_for_with_its_sizes() {
    let said = [greeting(3), size(1 << 20, 0b101), sizes(4096, 1 << 20), answer(1, &[])].concat();
    let (outcome, answered, _) = shake(&said, usize::MAX);
    let export = outcome.unwrap().unwrap();
    assert_eq!((export.size, export.block_bytes, export.payload_max), (1 << 20, 4096, 1 << 20));
    assert_eq!(export.flags, ExportFlags::HAS_FLAGS | ExportFlags::SEND_FLUSH);
    assert_eq!(answered, GO);
}

#[test]
fn it_does_not_matter_how_the_bytes_come_and_none_is_taken_too_many() {
    let name = answer(3, &[&1_u16.to_be_bytes()[..], &[b'x'; 300]].concat());
    let said = [greeting(3), name, size(1 << 20, 1), answer(1, &[]), vec![9; 5]].concat();
    let whole = shake(&said, usize::MAX);
    assert!(whole.0.unwrap().is_some());
    assert_eq!(whole.2, 5);
    assert_eq!(shake(&said, 1), whole);
    assert_eq!(shake(&said, 7), whole);
}

#[test]
fn a_server_that_cannot_go_is_asked_by_name() {
    let exported = [&(1_u64 << 20).to_be_bytes()[..], &1_u16.to_be_bytes()].concat();
    let said = [greeting(3), answer((1 << 31) + 1, b"what?"), exported].concat();
    let (outcome, answered, rest) = shake(&said, 3);
    assert_eq!((outcome.unwrap().unwrap().size, rest), (1 << 20, 0));
    assert_eq!(answered, [GO, b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk"].concat());
}

#[test]
fn a_server_without_answers_is_asked_by_name_and_its_padding_skipped() {
    let exported = [&(1_u64 << 20).to_be_bytes()[..], &1_u16.to_be_bytes(), &[0; 124]].concat();
    let said = [greeting(0), exported, vec![9]].concat();
    let (outcome, answered, rest) = shake(&said, usize::MAX);
    assert_eq!((outcome.unwrap().unwrap().size, rest), (1 << 20, 1));
    assert_eq!(answered, b"\0\0\0\0IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
}

#[test]
fn refusals_are_told_apart() {
    let refused =
        |number: u32| shake(&[greeting(3), answer((1 << 31) + number, b"no")].concat(), usize::MAX).0;
    assert_eq!(refused(2), Err(NbdError::Policy));
    assert_eq!(refused(5), Err(NbdError::TlsRequired));
    assert_eq!(refused(6), Err(NbdError::NoExport));
    assert_eq!(refused(7), Err(NbdError::ShuttingDown));
    assert_eq!(refused(9), Err(NbdError::Refused(9)));
}

#[test]
fn what_is_no_nbd_server_is_refused() {
    let protocol =
        |said: &[u8]| assert!(matches!(shake(said, usize::MAX).0, Err(NbdError::Protocol(_))), "{said:?}");
    protocol(b"HTTP/1.1 400 Bad Request\r\n");
    protocol(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0");
    protocol(&[greeting(3), answer(1, &[])].concat());
    protocol(&[greeting(3), answer(2, &[])].concat());
    protocol(&[greeting(3), answer(3, &[0])].concat());
    protocol(&[greeting(3), answer(3, &[0, 0, 1])].concat());
    protocol(&[greeting(3), vec![0; 20]].concat());
    protocol(&[greeting(3), answer(3, &[5; 9000])].concat());
    protocol(&[greeting(3), size(1 << 20, 1).repeat(100)].concat());
}

#[test]
fn what_an_end_means_depends_on_what_was_asked() {
    let ended = |said: &[u8]| {
        let mut handshake = Handshake::new("disk");
        let mut said = said;
        let outcome = handshake.receive(|room| std::io::Read::read(&mut said, room).unwrap());
        assert_eq!(outcome, Ok(None));
        handshake.ended()
    };
    assert_eq!(ended(b""), NbdError::Unreachable);
    assert_eq!(ended(b"NBD"), NbdError::Ended);
    assert_eq!(ended(&greeting(3)), NbdError::Ended);
    assert_eq!(ended(&greeting(0)), NbdError::EndedAtName);
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_it(
        said in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        most in 1..50_usize,
        flags in 0..4_u16,
    ) {
        let _ = shake(&said, most);
        let _ = shake(&[greeting(flags), said.clone()].concat(), most);
        let _ = shake(&[greeting(3), answer(3, &said)].concat(), most);
    }
}
