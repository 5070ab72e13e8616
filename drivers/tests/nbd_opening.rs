//! How exports of NBD servers are opened, shared and left.

mod common;

use common::disk_bed::{DiskGuest, OK};
use common::nbd_bed::{MS, NbdBed, SECOND};
use common::nbd_server::{NbdServer, READ_ONLY};
use drivers::block::{Geometry, Volume};
use drivers::fake::FakePinned;
use drivers::virtio::blk::config::FLUSH;
use drivers::volume::nbd::NbdError;
use drivers::volume::registry::{Access, OpenError, OpenVolume};

const TARGET: &str = "nbd:10.0.0.1/disk";

fn bed() -> NbdBed {
    NbdBed::new(NbdServer::new(64))
}

fn geometry(volume: &OpenVolume) -> Geometry {
    Volume::<FakePinned>::geometry(volume)
}

fn refused(bed: &NbdBed) -> OpenError {
    bed.open(TARGET, Access::ReadWrite).unwrap_err()
}

#[test]
fn an_export_is_a_volume() {
    let bed = bed();
    let geometry = geometry(&bed.open(TARGET, Access::ReadWrite).unwrap());
    assert_eq!((geometry.sectors, geometry.block_bytes, geometry.read_only), (64, 512, false));
    assert_eq!((geometry.transfer_bytes_max, geometry.discard_sectors_max), (65536, 16384));
}

#[test]
fn blocks_are_the_servers() {
    let bed = bed();
    bed.server.state().sizes = Some((4096, 10000));
    let geometry = geometry(&bed.open(TARGET, Access::ReadWrite).unwrap());
    assert_eq!((geometry.block_bytes, geometry.transfer_bytes_max), (4096, 8192));
}

#[test]
fn there_is_one_writer_or_many_readers() {
    let bed = bed();
    let writer = bed.open(TARGET, Access::ReadWrite).unwrap();
    assert_eq!(bed.open(TARGET, Access::ReadOnly).unwrap_err(), OpenError::BeingWritten);
    drop(writer);
    let _reader = bed.open(TARGET, Access::ReadOnly).unwrap();
    let _other = bed.open(TARGET, Access::ReadOnly).unwrap();
    assert_eq!(refused(&bed), OpenError::BeingRead);
    assert_eq!(bed.open_disks(), 1);
}

#[test]
fn exports_are_told_apart_by_server_and_name() {
    let bed = bed();
    let _here = bed.open(TARGET, Access::ReadWrite).unwrap();
    let _there = bed.open("nbd:10.0.0.2/disk", Access::ReadWrite).unwrap();
    let _port = bed.open("nbd:10.0.0.1:7/disk", Access::ReadWrite).unwrap();
    bed.server.state().export = String::new();
    let _name = bed.open("nbd:10.0.0.1/", Access::ReadWrite).unwrap();
    assert_eq!((bed.open_disks(), bed.server.state().connections), (4, 4));
}

#[test]
fn a_read_only_export_is_not_opened_for_writing() {
    let bed = bed();
    bed.server.state().flags |= READ_ONLY;
    assert_eq!(refused(&bed), OpenError::ReadOnlyDisk);
    assert!(geometry(&bed.open(TARGET, Access::ReadOnly).unwrap()).read_only);
}

#[test]
fn an_export_that_is_not_there_is_refused_at_once() {
    let bed = bed();
    bed.server.state().export = "other".into();
    let begun_ns = bed.now_ns.get();
    assert_eq!(refused(&bed), OpenError::Network(NbdError::NoExport));
    assert!(bed.now_ns.get() - begun_ns < 10 * MS);
    assert_eq!((bed.server.state().aborts, bed.open_disks()), (1, 0));
}

#[test]
fn a_server_that_is_not_there_is_waited_for() {
    let bed = bed();
    bed.server.state().is_up = false;
    let begun_ns = bed.now_ns.get();
    assert_eq!(refused(&bed), OpenError::Network(NbdError::Unreachable));
    let waited_ns = bed.now_ns.get() - begun_ns;
    assert!((8 * SECOND..9 * SECOND).contains(&waited_ns), "{waited_ns}");
    bed.server.state().is_up = true;
    assert!(bed.open(TARGET, Access::ReadWrite).is_ok());
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let bed = bed();
    bed.server.state().speaks = false;
    assert_eq!(refused(&bed), OpenError::Network(NbdError::Silent));
}

#[test]
fn a_handshake_that_breaks_at_any_byte_is_begun_again() {
    for cut in 1..100 {
        let bed = bed();
        bed.server.state().chunk = 5;
        bed.server.state().cut_in = Some(cut.min(43));
        bed.server.state().cut_out = Some(cut.min(69));
        assert!(bed.open(TARGET, Access::ReadWrite).is_ok(), "{cut}");
    }
}

#[test]
fn buffers_are_fewer_when_there_is_little_ram() {
    let bed = bed();
    bed.ram.set(130_000);
    let _volume = bed.open(TARGET, Access::ReadWrite).unwrap();
    bed.disks.for_each(|disk| assert_eq!(disk.facts().slots, 1));
    bed.ram.set(65_535);
    assert_eq!(bed.open("nbd:10.0.0.2/disk", Access::ReadWrite).unwrap_err(), OpenError::NoRam(65_536));
    assert_eq!(bed.open_disks(), 1);
}

#[test]
fn the_last_user_says_goodbye() {
    let bed = bed();
    let first = bed.open(TARGET, Access::ReadOnly).unwrap();
    let second = bed.open(TARGET, Access::ReadOnly).unwrap();
    drop(first);
    bed.turns(1, &mut []);
    assert_eq!((bed.server.state().goodbyes, bed.open_disks()), (0, 1));
    drop(second);
    bed.turns(1, &mut []);
    assert_eq!((bed.server.state().goodbyes, bed.open_disks()), (1, 0));
    assert_eq!(bed.disks.deadline_ns(), None);
}

#[test]
fn what_the_last_user_left_ends_before_the_next_begins() {
    let bed = bed();
    let mut last = bed.guest();
    bed.server.state().is_prompt = false;
    last.put_write(0, 3, 512, 1);
    last.kick();
    bed.turns(1, &mut [&mut last]);
    drop(last);
    bed.turns(5, &mut []);
    let mut next = DiskGuest::new(bed.open(TARGET, Access::ReadWrite).unwrap(), FLUSH);
    next.put_write(0, 3, 512, 2);
    next.kick();
    bed.turns(5, &mut [&mut next]);
    assert_eq!((bed.server.waiting(), bed.server.state().connections), (1, 1));
    bed.server.answer_all();
    bed.turns(5, &mut [&mut next]);
    bed.server.answer_all();
    bed.turns(5, &mut [&mut next]);
    assert_eq!((next.status(0), bed.server.state().bytes[3 * 512]), (OK, 2));
}

#[test]
fn a_server_that_does_not_come_back_keeps_no_closed_export() {
    let bed = bed();
    let mut last = bed.guest();
    bed.server.state().is_prompt = false;
    last.put_write(0, 3, 512, 1);
    last.kick();
    bed.turns(1, &mut [&mut last]);
    bed.server.kill();
    drop(last);
    bed.sleep(29 * SECOND, &mut []);
    assert_eq!(bed.open_disks(), 1);
    bed.sleep(2 * SECOND, &mut []);
    assert_eq!((bed.open_disks(), bed.disks.deadline_ns()), (0, None));
}

#[test]
fn an_opening_that_is_dropped_leaves_nothing_behind() {
    let bed = bed();
    let spec = drivers::volume::spec::VolumeSpec::parse(TARGET).unwrap();
    let mut opening = Box::pin(bed.registry.open(&spec, Access::ReadWrite, 0));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(opening.as_mut().poll(&mut context).is_pending());
    drop(opening);
    assert_eq!(bed.disks.deadline_ns(), None);
    assert!(bed.open(TARGET, Access::ReadWrite).is_ok());
}
