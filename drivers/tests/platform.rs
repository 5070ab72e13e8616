//! A platform that lets a device reach only what the driver gives it, page by page, until the request is done.

mod common;

use common::disk_bed::{DiskBed, IN, OUT, RING_PINS};
use common::{DATA, DEVICE_FEATURES, DEVICE_FEATURES_SEL, Guest, ModelDisk, RING_FEATURES, STATUS};
use drivers::virtio::Features;
use drivers::virtio::mmio::PlatformTrouble;

const PLATFORM: Features = Features::ACCESS_PLATFORM;
const CONFIGURING: u32 = 1 | 2 | 8;

fn cold() -> Guest {
    Guest::on_platform(PLATFORM, Box::new(ModelDisk::new(64)))
}

#[test]
fn features_of_the_platform_are_offered_where_it_has_them() {
    let mut guests = [cold(), Guest::cold(&ModelDisk::new(64))];
    let offered = guests.each_mut().map(|guest| {
        let _ = guest.write(DEVICE_FEATURES_SEL, 1);
        guest.read(DEVICE_FEATURES) & 2 != 0
    });
    assert_eq!(offered, [true, false]);
}

#[test]
fn a_driver_that_accepts_them_comes_up() {
    let mut guest = cold();
    guest.start(RING_FEATURES | PLATFORM);
    assert!(guest.device.is_running());
    assert_eq!(guest.device.platform_trouble(), None);
}

#[test]
fn a_driver_without_them_is_refused() {
    let mut guest = cold();
    guest.start(RING_FEATURES);
    assert_eq!((guest.read(STATUS) & 8, guest.memory.pins()), (0, 0));
    assert_eq!(guest.device.platform_trouble(), Some(PlatformTrouble::FeaturesRefused));
}

#[test]
fn another_driver_that_accepts_them_ends_the_trouble() {
    let mut guest = cold();
    guest.start(RING_FEATURES);
    guest.start(RING_FEATURES | PLATFORM);
    assert!(guest.device.is_running());
    assert_eq!(guest.device.platform_trouble(), None);
}

#[test]
fn a_reset_alone_does_not_end_the_trouble() {
    let mut guest = cold();
    guest.start(RING_FEATURES);
    let _ = guest.write(STATUS, 0);
    assert_eq!(guest.device.platform_trouble(), Some(PlatformTrouble::FeaturesRefused));
}

#[test]
fn trouble_is_not_brought_up_for_ever() {
    let mut guest = cold();
    let flips = (0..100).filter(|_| {
        guest.start(RING_FEATURES);
        let trouble = guest.device.platform_trouble().is_some();
        guest.start(RING_FEATURES | PLATFORM);
        trouble
    });
    assert_eq!(flips.count(), 16);
}

#[test]
fn a_legacy_driver_is_no_trouble_of_the_platform() {
    let mut guest = Guest::cold(&ModelDisk::new(64));
    guest.negotiate(Features::EVENT_IDX);
    assert_eq!((guest.read(STATUS), guest.device.platform_trouble()), (CONFIGURING & !8, None));
}

#[test]
fn nothing_of_a_request_is_pinned_when_it_is_told_done() {
    let mut guest = Guest::running(&ModelDisk::new(4096));
    guest.set_request(IN, 0, &[(DATA, 4096, true)]);
    guest.submit(0);
    guest.set_request(OUT, 8, &[(DATA, 4096, false)]);
    guest.submit(0);
    assert_eq!((guest.used_index(), guest.memory.most_pins_at_publication()), (2, RING_PINS));
}

#[test]
fn nothing_of_a_request_in_pieces_is_pinned_when_it_is_told_done() {
    let mut guest = Guest::running(&ModelDisk::new(4096));
    guest.memory.set_largest_pin(8192);
    guest.set_request(IN, 0, &[(DATA, 64 << 10, true)]);
    guest.submit(0);
    assert_eq!((guest.used_index(), guest.memory.most_pins_at_publication()), (1, RING_PINS));
}

#[test]
fn nothing_of_a_request_that_cannot_be_reached_is_pinned_when_it_is_told_done() {
    let mut guest = Guest::running(&ModelDisk::new(4096));
    guest.memory.punch_hole(DATA);
    guest.set_request(IN, 0, &[(DATA, 4096, true)]);
    guest.submit(0);
    assert_eq!((guest.status_byte(), guest.memory.most_pins_at_publication()), (1, RING_PINS));
}

#[test]
fn nothing_of_a_request_on_a_disk_is_pinned_when_it_is_told_done() {
    let bed = DiskBed::new(64, 4);
    let mut guest = bed.guest();
    guest.put(0, IN, 0, 4096);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert_eq!(guest.pins(), 1);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.given_back(), guest.guest.memory.most_pins_at_publication()), (vec![0], RING_PINS));
}
