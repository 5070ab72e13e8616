use super::properties::{Ip, Recipe, Tag};
use super::*;
use crate::net::checksum;
use std::vec;
use std::vec::Vec;

const UNABLE: Capabilities = Capabilities { checksum: false, tcp4: false, tcp6: false };
const ABLE: Capabilities = Capabilities { checksum: true, tcp4: true, tcp6: true };

fn recipe(payload_bytes: usize) -> Recipe {
    Recipe { payload: vec![0x5a; payload_bytes], ..Recipe::default() }
}

fn check(recipe: &Recipe, segment_bytes: u16) -> Result<Offload, OffloadError> {
    let frame = recipe.frame();
    Offload::check(recipe.allegation(segment_bytes), &frame)
}

fn check_changed(change: impl FnOnce(&mut Vec<u8>, &mut Allegation)) -> Result<Offload, OffloadError> {
    let recipe = recipe(3000);
    let (mut frame, mut allegation) = (recipe.frame(), recipe.allegation(1000));
    change(&mut frame, &mut allegation);
    Offload::check(allegation, &frame)
}

fn only_checksum(start: u16, offset: u16, frame: &[u8]) -> Result<Offload, OffloadError> {
    let checksum = Some(PartialChecksum { start, offset });
    Offload::check(Allegation { checksum, ..Allegation::default() }, frame)
}

#[test]
fn headers_are_measured_not_believed() {
    let segmentation = check(&recipe(3000), 1000).unwrap().segmentation.unwrap();
    assert_eq!((segmentation.header_bytes, segmentation.segment_bytes), (54, 1000));
}

#[test]
fn what_fits_one_piece_is_not_cut() {
    let offload = check(&recipe(1000), 1000).unwrap();
    assert_eq!((offload.segmentation, offload.checksum.is_some()), (None, true));
    assert_eq!(check(&recipe(0), 1000).unwrap().segmentation, None);
}

#[test]
fn pieces_are_bounded() {
    assert!(check(&recipe(PIECES_MAX * 500), 500).unwrap().segmentation.is_some());
    assert_eq!(check(&recipe(PIECES_MAX * 500 + 1), 500), Err(OffloadError::SegmentBytes(500)));
    assert_eq!(check(&recipe(3000), 0), Err(OffloadError::SegmentBytes(0)));
}

#[test]
fn pieces_fit_the_wire() {
    assert!(check(&recipe(3000), 1460).is_ok());
    assert!(check(&recipe(3000), 1468).is_ok());
    assert_eq!(check(&recipe(3000), 1469), Err(OffloadError::SegmentBytes(1469)));
}

#[test]
fn another_protocol_than_said_is_refused() {
    let tcp6 = Some((SegmentedProtocol::Tcp6, 1000));
    assert_eq!(check_changed(|_, allegation| allegation.segmentation = tcp6), Err(OffloadError::NotTcp));
    assert_eq!(check_changed(|frame, _| frame[14 + 9] = 17), Err(OffloadError::NotTcp));
}

#[test]
fn a_length_that_is_not_the_frames_is_refused() {
    assert_eq!(check_changed(|frame, _| frame.push(0)), Err(OffloadError::NotTcp));
    assert_eq!(check_changed(|frame, _| frame.truncate(3053)), Err(OffloadError::NotTcp));
    // An IPv4 header of 16 bytes, a TCP header of 16.
    assert_eq!(check_changed(|frame, _| frame[14] = 0x44), Err(OffloadError::NotTcp));
    assert_eq!(check_changed(|frame, _| frame[34 + 12] = 0x40), Err(OffloadError::NotTcp));
}

#[test]
fn fragments_are_not_cut() {
    assert_eq!(check_changed(|frame, _| frame[14 + 6] = 0x20), Err(OffloadError::NotTcp));
    assert_eq!(check_changed(|frame, _| frame[14 + 7] = 0x01), Err(OffloadError::NotTcp));
    // Don't fragment.
    assert!(check_changed(|frame, _| frame[14 + 6] = 0x40).is_ok());
}

#[test]
fn headers_that_are_too_long_are_refused() {
    let with = |options| Recipe {
        ip: Ip::V6 { hop_by_hop: None, routing: None, destination: Some(options) },
        ..recipe(3000)
    };
    // 14 + 40 + 176 + 20
    assert_eq!(check(&with(174), 1000).unwrap().segmentation.unwrap().header_bytes, 250);
    assert_eq!(check(&with(182), 1000), Err(OffloadError::NotTcp));
}

#[test]
fn two_tags_are_looked_through_and_no_third() {
    let tagged = |tags| Recipe { tags, ..recipe(3000) };
    assert!(check(&tagged(vec![Tag::Service(5), Tag::Customer(6)]), 1000).is_ok());
    assert!(check(&tagged(vec![Tag::Service(5), Tag::Customer(6), Tag::Customer(7)]), 1000).is_err());
}

#[test]
fn a_frame_to_be_cut_has_its_checksum_where_tcp_has_it() {
    let refused = Err(OffloadError::Checksum);
    assert_eq!(check_changed(|_, allegation| allegation.checksum = None), refused);
    let elsewhere = |start, offset| Some(PartialChecksum { start, offset });
    assert_eq!(check_changed(|_, allegation| allegation.checksum = elsewhere(34, 6)), refused);
    assert_eq!(check_changed(|_, allegation| allegation.checksum = elsewhere(30, 20)), refused);
}

#[test]
fn a_checksum_lies_behind_what_the_bridge_goes_by() {
    let frame = recipe(300).frame();
    assert_eq!(only_checksum(6, 0, &frame), Err(OffloadError::Checksum));
    assert!(only_checksum(14, 0, &frame).is_ok());
    let tagged = Recipe { tags: vec![Tag::Customer(6)], ..recipe(300) }.frame();
    assert_eq!(only_checksum(14, 0, &tagged), Err(OffloadError::Checksum));
    assert!(only_checksum(18, 0, &tagged).is_ok());
}

#[test]
fn a_checksum_lies_inside_the_frame_and_among_its_first_bytes() {
    let frame = recipe(300).frame();
    assert!(only_checksum(34, 220, &frame).is_ok());
    assert_eq!(only_checksum(34, 221, &frame), Err(OffloadError::Checksum));
    assert_eq!(only_checksum(34, 19, &frame[..54]), Err(OffloadError::Checksum));
    assert_eq!(only_checksum(u16::MAX, u16::MAX, &frame), Err(OffloadError::Checksum));
    assert_eq!(only_checksum(0, 0, &[]), Err(OffloadError::Checksum));
}

#[test]
fn who_takes_it_gets_the_frame_as_it_is() {
    let recipe = recipe(3000);
    let (frame, offload) = (recipe.frame(), check(&recipe, 1000).unwrap());
    let pieces = pieces(&frame, offload, ABLE);
    let mut header = [0; HEADER_BYTES_MAX];
    assert_eq!((pieces.count(), pieces.bytes()), (1, frame.len()));
    let piece = pieces.piece(0, &mut header).unwrap();
    assert_eq!((piece.front, piece.rest, piece.offload), (&frame[..], &[][..], offload));
    assert_eq!(pieces.piece(1, &mut header), None);
}

#[test]
fn uncut_without_checksums_is_not_to_be_had() {
    let recipe = recipe(3000);
    let frame = recipe.frame();
    let receiver = Capabilities { checksum: false, ..ABLE };
    assert_eq!(pieces(&frame, check(&recipe, 1000).unwrap(), receiver).count(), 3);
}

#[test]
fn a_frame_that_is_not_cut_keeps_its_partial_checksum_for_who_takes_it() {
    let recipe = recipe(300);
    let (frame, offload) = (recipe.frame(), check(&recipe, 1000).unwrap());
    let mut header = [0; HEADER_BYTES_MAX];
    let receiver = Capabilities { checksum: true, ..UNABLE };
    let pieces = pieces(&frame, offload, receiver);
    let piece = pieces.piece(0, &mut header).unwrap();
    assert_eq!((piece.front, piece.offload), (&frame[..], offload));
}

#[test]
fn a_checksum_of_zero_is_written_as_ones() {
    // The sum of all from byte 14 on is 0xffff.
    let mut frame = [0; 60];
    frame[14..16].copy_from_slice(&[0xff, 0xff]);
    let offload = only_checksum(14, 4, &frame).unwrap();
    let mut header = [0; HEADER_BYTES_MAX];
    let pieces = pieces(&frame, offload, UNABLE);
    let piece = pieces.piece(0, &mut header).unwrap();
    assert_eq!((&piece.front[18..], piece.front.len() + piece.rest.len()), (&[0xff, 0xff][..], 60));
    assert_eq!(checksum::sum(&piece.front[14..]), 0xffff);
}

#[test]
fn who_vouches_is_told_only_to_who_asks() {
    let allegation = Allegation { is_verified: true, ..Allegation::default() };
    let frame = recipe(10).frame();
    let offload = Offload::check(allegation, &frame).unwrap();
    let mut header = [0; HEADER_BYTES_MAX];
    assert!(pieces(&frame, offload, ABLE).piece(0, &mut header).unwrap().offload.is_verified);
    assert!(!pieces(&frame, offload, UNABLE).piece(0, &mut header).unwrap().offload.is_verified);
}

#[test]
fn nobody_vouches_for_a_checksum_that_is_not_there() {
    assert!(!check_changed(|_, allegation| allegation.is_verified = true).unwrap().is_verified);
}
