//! The register file as a driver meets it, in the order of Linux's virtio_mmio.

mod common;

use common::{
    AVAILABLE, CONFIG, DESCRIPTORS, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DRIVER_FEATURES,
    DRIVER_FEATURES_SEL, Guest, INTERRUPT_ACK, INTERRUPT_STATUS, ModelDisk, NEEDS_RESET, QUEUE_NOTIFY,
    QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL, RING_FEATURES, SIZE, STATUS, USED,
};
use drivers::virtio::Features;
use drivers::virtio::blk::config::{DISCARD, RO, WRITE_ZEROES};
use drivers::virtio::mmio::{Effect, Width};

fn cold() -> Guest {
    Guest::cold(&ModelDisk::new(64))
}

fn offered(guest: &mut Guest) -> Features {
    let _ = guest.write(DEVICE_FEATURES_SEL, 1);
    let high = u64::from(guest.read(DEVICE_FEATURES));
    let _ = guest.write(DEVICE_FEATURES_SEL, 0);
    Features::from_bits_retain(high << 32 | u64::from(guest.read(DEVICE_FEATURES)))
}

#[test]
fn probe_finds_a_block_device() {
    let guest = cold();
    assert_eq!(guest.read(0x0), 0x7472_6976);
    assert_eq!(guest.read(0x4), 2);
    assert_eq!(guest.read(0x8), 2);
}

#[test]
fn features_are_offered_in_halves() {
    let mut guest = cold();
    assert!(offered(&mut guest).contains(RING_FEATURES | DISCARD | WRITE_ZEROES));
    let _ = guest.write(DEVICE_FEATURES_SEL, 2);
    assert_eq!(guest.read(DEVICE_FEATURES), 0);
}

#[test]
fn read_only_disk_offers_no_way_to_write() {
    let mut guest = Guest::cold(&ModelDisk::read_only(64));
    let features = offered(&mut guest);
    assert!(features.contains(RO));
    assert!(!features.intersects(DISCARD | WRITE_ZEROES));
}

#[test]
fn features_not_offered_are_refused() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES | Features::ACCESS_PLATFORM);
    assert_eq!(guest.read(STATUS), 1 | 2);
}

#[test]
fn features_of_a_later_half_are_refused() {
    let mut guest = cold();
    guest.negotiate(Features::empty());
    let _ = guest.write(DRIVER_FEATURES_SEL, 1);
    let _ = guest.write(DRIVER_FEATURES, 1);
    let _ = guest.write(DRIVER_FEATURES_SEL, 2);
    let _ = guest.write(DRIVER_FEATURES, 1);
    let _ = guest.write(STATUS, 1 | 2 | 8);
    assert_eq!(guest.read(STATUS), 1 | 2);
}

#[test]
fn legacy_driver_is_refused() {
    let mut guest = cold();
    guest.negotiate(Features::EVENT_IDX);
    assert_eq!(guest.read(STATUS), 1 | 2);
}

#[test]
fn features_cannot_change_once_agreed() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    let _ = guest.write(DRIVER_FEATURES_SEL, 1);
    let _ = guest.write(DRIVER_FEATURES, 0);
    let _ = guest.write(STATUS, 1 | 2 | 8 | 4);
    assert_eq!(guest.read(STATUS), 1 | 2 | 8 | 4);
}

#[test]
fn one_queue_of_256() {
    let mut guest = cold();
    assert_eq!(guest.read(QUEUE_NUM_MAX), 256);
    let _ = guest.write(QUEUE_SEL, 1);
    assert_eq!(guest.read(QUEUE_NUM_MAX), 0);
    assert_eq!(guest.read(QUEUE_READY), 0);
}

#[test]
fn queue_is_ready_after_its_rings_are_pinned() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    guest.set_queue(SIZE, DESCRIPTORS, AVAILABLE, USED);
    assert_eq!(guest.read(QUEUE_READY), 1);
    assert_eq!(guest.memory.pins(), 3);
}

#[test]
fn queue_is_not_set_up_before_features_are_agreed() {
    let mut guest = cold();
    guest.set_queue(SIZE, DESCRIPTORS, AVAILABLE, USED);
    assert_eq!(guest.read(QUEUE_READY), 0);
    assert_eq!(guest.memory.pins(), 0);
}

#[test]
fn queue_is_given_back() {
    let mut guest = Guest::running(&ModelDisk::new(64));
    let _ = guest.write(QUEUE_READY, 0);
    assert_eq!(guest.read(QUEUE_READY), 0);
    assert_eq!(guest.memory.pins(), 0);
    assert_eq!(guest.write(QUEUE_NOTIFY, 0), Effect::None);
}

#[test]
fn reset_forgets_everything() {
    let mut guest = Guest::running(&ModelDisk::new(64));
    assert_eq!(guest.write(STATUS, 0), Effect::None);
    assert_eq!(guest.read(STATUS), 0);
    assert_eq!(guest.read(QUEUE_READY), 0);
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
    assert_eq!(guest.memory.pins(), 0);
}

#[test]
fn misaligned_ring_needs_reset() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    guest.set_queue(SIZE, DESCRIPTORS + 8, AVAILABLE, USED);
    assert!(guest.needs_reset());
    assert_eq!(guest.read(QUEUE_READY), 0);
}

#[test]
fn ring_in_a_hole_needs_reset() {
    let mut guest = cold();
    guest.memory.punch_hole(USED);
    guest.negotiate(RING_FEATURES);
    guest.set_queue(SIZE, DESCRIPTORS, AVAILABLE, USED);
    assert!(guest.needs_reset());
    assert_eq!(guest.memory.pins(), 0);
}

#[test]
fn queue_sizes_that_are_no_power_of_two_need_reset() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    guest.set_queue(12, DESCRIPTORS, AVAILABLE, USED);
    assert!(guest.needs_reset());
}

#[test]
fn queue_sizes_above_the_limit_need_reset() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    guest.set_queue(512, DESCRIPTORS, AVAILABLE, USED);
    assert!(guest.needs_reset());
}

#[test]
fn empty_queue_needs_reset() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    guest.set_queue(0, DESCRIPTORS, AVAILABLE, USED);
    assert!(guest.needs_reset());
}

#[test]
fn needs_reset_ends_with_a_reset() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    guest.set_queue(0, DESCRIPTORS, AVAILABLE, USED);
    guest.start(RING_FEATURES);
    assert_eq!(guest.read(STATUS), 1 | 2 | 4 | 8);
}

#[test]
fn guest_cannot_set_needs_reset() {
    let mut guest = Guest::running(&ModelDisk::new(64));
    let _ = guest.write(STATUS, 1 | 2 | 4 | 8 | NEEDS_RESET);
    assert!(!guest.needs_reset());
}

#[test]
fn registers_ignore_other_widths_and_odd_offsets() {
    let mut guest = cold();
    assert_eq!(guest.device.read(0, Width::One), 0);
    assert_eq!(guest.device.read(0, Width::Eight), 0);
    assert_eq!(guest.device.read(2, Width::Four), 0);
    assert_eq!(guest.device.write(STATUS, Width::One, 1), Effect::None);
    assert_eq!(guest.read(STATUS), 0);
}

#[test]
fn read_only_registers_ignore_writes() {
    let mut guest = cold();
    assert_eq!(guest.write(0x0, 0), Effect::None);
    assert_eq!(guest.write(INTERRUPT_STATUS, 3), Effect::None);
    assert_eq!(guest.read(0x0), 0x7472_6976);
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
}

#[test]
fn there_is_no_shared_memory() {
    let guest = cold();
    assert_eq!(guest.read(0xb0), u32::MAX);
    assert_eq!(guest.read(0xb4), u32::MAX);
}

#[test]
fn configuration_takes_every_width() {
    let guest = Guest::cold(&ModelDisk::new(0x1234));
    assert_eq!(guest.device.read(CONFIG, Width::Eight), 0x1234);
    assert_eq!(guest.device.read(CONFIG, Width::Four), 0x1234);
    assert_eq!(guest.device.read(CONFIG, Width::Two), 0x1234);
    assert_eq!(guest.device.read(CONFIG, Width::One), 0x34);
    assert_eq!(guest.device.read(CONFIG + 1, Width::One), 0x12);
}

#[test]
fn configuration_says_what_linux_asks_for() {
    let guest = cold();
    assert_eq!(guest.read(CONFIG + 0x08), 65536, "size_max");
    assert_eq!(guest.read(CONFIG + 0x0c), 254, "seg_max");
    assert_eq!(guest.read(CONFIG + 0x14), 512, "blk_size");
    assert_eq!(guest.device.read(CONFIG + 0x18, Width::One), 3, "physical_block_exp");
    assert_eq!(guest.device.read(CONFIG + 0x1a, Width::Two), 8, "min_io_size");
}

#[test]
fn configuration_past_its_end_reads_zero() {
    let guest = cold();
    assert_eq!(guest.device.read(CONFIG + 0x3b, Width::Eight), 0);
    assert_eq!(guest.device.read(u32::MAX, Width::Eight), 0);
}

#[test]
fn interrupt_reasons_are_acknowledged_bit_by_bit() {
    let mut guest = Guest::running(&ModelDisk::new(64));
    guest.set_request(4, 0, &[]);
    guest.submit(0);
    assert_eq!(guest.read(INTERRUPT_STATUS), 1);
    let _ = guest.write(INTERRUPT_ACK, 2);
    assert_eq!(guest.read(INTERRUPT_STATUS), 1);
    let _ = guest.write(INTERRUPT_ACK, 1);
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
}

#[test]
fn notification_does_no_work_by_itself() {
    let mut guest = Guest::running(&ModelDisk::new(64));
    guest.set_request(4, 0, &[]);
    guest.put_head(0, 0);
    guest.publish(1);
    assert_eq!(guest.write(QUEUE_NOTIFY, 0), Effect::Work);
    assert_eq!(guest.used_index(), 0);
}

#[test]
fn notification_of_no_queue_is_ignored() {
    let mut guest = Guest::running(&ModelDisk::new(64));
    assert_eq!(guest.write(QUEUE_NOTIFY, 1), Effect::None);
    assert_eq!(guest.write(QUEUE_NOTIFY, u32::MAX), Effect::None);
}

#[test]
fn buffers_made_available_before_driver_ok_are_served() {
    let mut guest = cold();
    guest.negotiate(RING_FEATURES);
    guest.set_queue(SIZE, DESCRIPTORS, AVAILABLE, USED);
    guest.set_request(4, 0, &[]);
    guest.put_head(0, 0);
    guest.publish(1);
    assert_eq!(guest.write(QUEUE_NOTIFY, 0), Effect::None);
    assert_eq!(guest.write(STATUS, 1 | 2 | 4 | 8), Effect::Work);
    guest.work();
    assert_eq!(guest.used_index(), 1);
}

#[test]
fn failed_device_is_served_no_more() {
    let mut guest = Guest::running(&ModelDisk::new(64));
    let _ = guest.write(STATUS, 1 | 2 | 4 | 8 | 128);
    assert_eq!(guest.write(QUEUE_NOTIFY, 0), Effect::None);
}
