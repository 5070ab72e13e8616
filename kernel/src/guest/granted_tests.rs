//! A guest that grants its memory page by page: what it grants is reached, nothing is kept, and what it takes back is gone.

use super::plane::{DISK, Disk};
use super::*;
use crate::limits::NEWS_PER_DEVICE;
use crate::xen::fake::Call;
use crate::xen::hypercall::Errno;
use crate::xen::store::tests::fake::HOME;

const DISK_OF_GRANTS: Disk = Disk { changed: ("grant_usage", Some("1")), ..DISK };

/// Number of a page of RAM.
fn page(address: u64) -> u32 {
    ((address - RAM) / 4096) as u32
}

impl Driver<'_> {
    fn grant(&self, address: u64, read_only: bool) {
        let frame = RAM / 4096 + u64::from(page(address));
        self.bed.xen.grant(self.domain, FIRST_REFERENCE + page(address), frame, read_only);
    }

    /// Whether Xen lets us take it back.
    fn revoke(&self, address: u64) -> bool {
        self.bed.xen.revoke(self.domain, FIRST_REFERENCE + page(address))
    }

    fn grant_rings(&self) {
        [DESCRIPTORS, AVAILABLE, USED].iter().for_each(|ring| self.grant(*ring, false));
    }

    fn revoke_rings(&self) -> [bool; 3] {
        [DESCRIPTORS, AVAILABLE, USED].map(|ring| self.revoke(ring))
    }

    /// The buffers of a request, each for as little as it takes.
    fn grant_buffers(&self, kind: u32) {
        self.grant(HEADER, true);
        self.grant(DATA, kind == WRITE);
        self.grant(STATUS_BYTE, false);
    }

    fn revoke_buffers(&self) -> [bool; 3] {
        [HEADER, DATA, STATUS_BYTE].map(|buffer| self.revoke(buffer))
    }

    /// Carries a request out as Linux does: granted just for it. Its status.
    fn run_granted(&mut self, kind: u32, sector: u64) -> u8 {
        self.grant_buffers(kind);
        let status = self.run(kind, sector);
        assert_eq!(self.revoke_buffers(), [true; 3]);
        status
    }
}

/// A bed whose first guest has a disk that is shared by grants.
fn bed() -> Bed {
    let bed = Bed::new();
    bed.attach_shared_by(Sharing::Granted, A, 0, BASE, 8).unwrap();
    bed
}

fn started(bed: &Bed) -> Driver<'_> {
    let driver = Driver { grants: true, ..Driver::new(bed, A, BASE) };
    driver.grant_rings();
    driver.start(DESCRIPTORS);
    bed.work();
    driver
}

#[test]
fn what_was_written_is_read_back() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.write(DATA, &[0x5a; 512]);
    assert_eq!(driver.run_granted(WRITE, 7), 0);
    driver.write(DATA, &[0; 512]);
    assert_eq!(driver.run_granted(READ, 7), 0);
    assert_eq!(bed.xen.read_guest(A, DATA), [0x5a; 512]);
}

#[test]
fn only_the_rings_are_mapped_and_no_guest_memory_by_its_frame_number() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.run_granted(READ, 0);
    assert_eq!((bed.xen.grant_mappings(), bed.xen.calls(Call::MapForeign)), (3, 0));
}

#[test]
fn a_request_takes_a_hypercall_for_header_data_and_status() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.run_granted(READ, 0);
    assert_eq!((bed.xen.calls(Call::CopyGrant), bed.xen.calls(Call::UnmapGrant)), (3, 0));
}

#[test]
fn requests_that_wait_together_have_their_headers_copied_together() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.grant_buffers(READ);
    driver.publish(READ, 0);
    // The same chain four times.
    driver.submitted = 4;
    driver.write(AVAILABLE + 2, &4_u16.to_le_bytes());
    driver.kick();
    bed.work();
    assert_eq!((driver.used(), bed.xen.calls(Call::CopyGrant)), (4, 1 + 2 * 4));
}

#[test]
fn headers_of_which_one_is_not_granted_are_copied_one_by_one() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.grant_buffers(READ);
    driver.publish(READ, 0);
    driver.grant(RAM + 0x6000, false);
    // A second chain, whose header is at nothing that was granted.
    driver.descriptor(3, RAM + 0x7000, 16, 1);
    driver.descriptor(4, DATA, 512, 1 | 2);
    driver.descriptor(5, RAM + 0x6000, 1, 2);
    driver.write(RAM + 0x6000, &[0xff]);
    driver.write(AVAILABLE + 4, &[0, 0, 3, 0]);
    driver.submitted = 2;
    driver.write(AVAILABLE + 2, &2_u16.to_le_bytes());
    driver.kick();
    bed.work();
    let statuses = [STATUS_BYTE, RAM + 0x6000].map(|at| bed.xen.read_guest::<1>(A, at)[0]);
    assert_eq!((driver.used(), statuses, driver.status() & 64), (2, [0, 1], 0));
}

#[test]
fn indirect_tables_are_copied_together() {
    let bed = bed();
    let mut driver = Driver { grants: true, ..Driver::new(&bed, A, BASE) };
    driver.grant_rings();
    driver.indirect = true;
    driver.start(DESCRIPTORS);
    bed.work();
    driver.grant_buffers(READ);
    driver.grant(TABLE, true);
    driver.publish(READ, 0);
    // The same chain four times, each time by a table of its own.
    let table: [u8; 48] = bed.xen.read_guest(A, DESCRIPTORS);
    driver.write(TABLE, &table);
    (0..4).for_each(|n| driver.descriptor(n, TABLE, 48, 4));
    driver.write(AVAILABLE + 4, &[0, 0, 1, 0, 2, 0, 3, 0]);
    driver.submitted = 4;
    driver.write(AVAILABLE + 2, &4_u16.to_le_bytes());
    driver.kick();
    bed.work();
    assert_eq!((driver.used(), bed.xen.calls(Call::CopyGrant)), (4, 2 + 2 * 4));
    assert_eq!((bed.xen.read_guest(A, STATUS_BYTE), driver.status() & 64), ([0], 0));
}

#[test]
fn a_reset_unmaps_the_rings_before_it_is_answered() {
    let bed = bed();
    let driver = started(&bed);
    assert_eq!(driver.revoke_rings(), [false; 3]);
    driver.set(register::STATUS, 0);
    assert_eq!((driver.revoke_rings(), bed.xen.grant_mappings()), ([true; 3], 0));
}

#[test]
fn a_queue_that_is_given_back_is_unmapped_before_that_is_answered() {
    let bed = bed();
    let driver = started(&bed);
    driver.set(register::QUEUE_READY, 0);
    assert_eq!(driver.revoke_rings(), [true; 3]);
}

#[test]
fn rings_may_be_granted_for_no_more_than_they_are_used_for() {
    let bed = bed();
    let mut driver = Driver { grants: true, ..Driver::new(&bed, A, BASE) };
    driver.grant(DESCRIPTORS, true);
    driver.grant(AVAILABLE, true);
    driver.grant(USED, false);
    driver.start(DESCRIPTORS);
    bed.work();
    assert_eq!(driver.run_granted(READ, 0), 0);
}

#[test]
fn rings_that_are_not_granted_break_the_device_and_a_reset_mends_it() {
    let bed = bed();
    let mut driver = Driver { grants: true, ..Driver::new(&bed, A, BASE) };
    driver.start(DESCRIPTORS);
    assert_eq!((driver.status() & 64, bed.xen.grant_mappings()), (64, 0));
    driver.grant_rings();
    driver.start(DESCRIPTORS);
    bed.work();
    assert_eq!(driver.run_granted(READ, 0), 0);
}

#[test]
fn a_used_ring_that_is_granted_for_reading_is_never_written() {
    let bed = bed();
    let driver = Driver { grants: true, ..Driver::new(&bed, A, BASE) };
    driver.grant_rings();
    driver.grant(USED, true);
    driver.start(DESCRIPTORS);
    bed.work();
    assert_eq!((driver.status() & 64, driver.revoke_rings()), (64, [true; 3]));
}

#[test]
fn buffers_that_are_not_granted_are_an_error_of_that_request() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.grant(HEADER, true);
    driver.grant(STATUS_BYTE, false);
    assert_eq!(driver.run(READ, 0), 1);
    driver.revoke(HEADER);
    driver.grant(DATA, false);
    assert_eq!(driver.run(READ, 0), 1);
    assert_eq!((driver.status() & 64, driver.run_granted(READ, 0)), (0, 0));
}

#[test]
fn data_that_is_granted_for_reading_is_not_written() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.write(DATA, &[9; 512]);
    driver.grant_buffers(WRITE);
    assert_eq!((driver.run(READ, 0), bed.xen.read_guest(A, DATA)), (1, [9; 512]));
}

#[test]
fn a_status_byte_that_cannot_be_written_gives_the_chain_back_with_nothing() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.grant_buffers(READ);
    driver.grant(STATUS_BYTE, true);
    assert_eq!(driver.run(READ, 0), 0xff);
    assert_eq!(bed.xen.read_guest(A, USED + 8), [0; 4]);
    assert_eq!((driver.status() & 64, driver.revoke_buffers()), (0, [true; 3]));
}

#[test]
fn what_is_granted_to_another_domain_is_out_of_reach() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.grant_buffers(READ);
    let frame = RAM / 4096 + u64::from(page(DATA));
    bed.xen.grant_to(B, A, FIRST_REFERENCE + page(DATA), frame, false);
    assert_eq!(driver.run(READ, 0), 1);
}

#[test]
fn references_of_another_guest_mean_nothing() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.grant_buffers(READ);
    driver.revoke(DATA);
    bed.xen.grant(B, FIRST_REFERENCE + page(DATA), RAM / 4096, false);
    bed.xen.write_guest(B, RAM, &[3; 512]);
    assert_eq!((driver.run(READ, 0), bed.xen.read_guest(B, RAM)), (1, [3; 512]));
}

/// Status of a request whose data is said to be at `address`, and of a good one after it.
fn run_with_data_at(address: u64) -> (u8, u8) {
    let bed = bed();
    let mut driver = started(&bed);
    driver.grant_buffers(READ);
    driver.publish(READ, 0);
    driver.write(DESCRIPTORS + 16, &address.to_le_bytes());
    driver.kick();
    bed.work();
    let [status] = bed.xen.read_guest(A, STATUS_BYTE);
    assert_eq!((driver.used(), driver.status() & 64, bed.xen.leaks().len()), (1, 0, 0));
    assert_eq!(driver.revoke_buffers(), [true; 3]);
    (status, driver.run_granted(READ, 0))
}

#[test]
fn an_address_that_is_no_grant_is_an_error_of_that_request() {
    assert_eq!(run_with_data_at(DATA), (1, 0));
    assert_eq!(run_with_data_at(0), (1, 0));
}

#[test]
fn a_reference_that_cannot_be_is_an_error_of_that_request() {
    assert_eq!(run_with_data_at((1 << 63) | (1 << 44)), (1, 0));
    assert_eq!(run_with_data_at(u64::MAX - 511), (1, 0));
    assert_eq!(run_with_data_at((1 << 63) | (0xffff_ffff << 12) | 0xf00), (1, 0));
    assert_eq!(run_with_data_at(1 << 63), (1, 0));
}

#[test]
fn a_grant_is_no_address_where_memory_is_shared_by_frame_numbers() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.publish(READ, 0);
    driver.write(DESCRIPTORS + 16, &((1_u64 << 63) | DATA).to_le_bytes());
    driver.kick();
    bed.work();
    let [status] = bed.xen.read_guest(A, STATUS_BYTE);
    assert_eq!((status, driver.status() & 64, driver.run(READ, 0)), (1, 0, 0));
}

#[test]
fn a_guest_that_is_removed_has_nothing_mapped() {
    let bed = bed();
    let mut driver = started(&bed);
    driver.run_granted(READ, 0);
    bed.table.borrow_mut().remove(A);
    assert_eq!((bed.left(A), bed.xen.grant_mappings(), bed.xen.leaks()), ((0, 0, 0, 0), 0, vec![]));
    bed.xen.destroy(A);
    assert!(!bed.xen.exists(A));
}

#[test]
fn a_destroyed_guest_goes_when_it_is_removed() {
    let bed = bed();
    started(&bed);
    bed.xen.destroy(A);
    assert!(bed.xen.exists(A));
    bed.table.borrow_mut().remove(A);
    assert!(!bed.xen.exists(A));
}

#[test]
fn one_guests_rings_do_not_keep_another_from_its_own() {
    let bed = bed();
    (1..11).for_each(|id| {
        bed.attach_shared_by(Sharing::Granted, A, id, BASE + u64::from(id) * DEVICE_BYTES, 8).unwrap();
    });
    bed.attach_shared_by(Sharing::Granted, B, 0, BASE, 8).unwrap();
    started(&bed);
    let driver = Driver { grants: true, ..Driver::new(&bed, B, BASE) };
    driver.grant_rings();
    driver.start(DESCRIPTORS);
    assert_eq!(driver.status() & 64, 0);
}

#[test]
fn no_memory_for_tables_breaks_only_that_device() {
    let bed = bed();
    let driver = Driver { grants: true, ..Driver::new(&bed, A, BASE) };
    driver.grant_rings();
    bed.xen.refuse(Call::MapGrant, 0, Errno::EPERM);
    driver.start(DESCRIPTORS);
    assert_eq!((driver.status() & 64, bed.xen.grant_mappings()), (64, 0));
}

/// Brings up guest A's driver in a plane.
fn bring_up(bed: &Bed, grants: bool, features: bool) {
    let driver = Driver { grants, ..Driver::new(bed, A, BASE) };
    driver.grant_rings();
    if features {
        driver.start(DESCRIPTORS);
    } else {
        [0, 1, 3].iter().for_each(|status| driver.set(register::STATUS, *status));
        driver.set(register::DRIVER_FEATURES_SELECT, 1);
        driver.set(register::DRIVER_FEATURES, 1);
        driver.set(register::STATUS, 11);
    }
}

#[test]
fn a_disk_with_grants_is_served() {
    let plane = DISK_OF_GRANTS.added();
    assert!(DISK_OF_GRANTS.is_served(&plane));
    bring_up(&plane.bed, true, true);
    plane.settle();
    assert_eq!(DISK_OF_GRANTS.error(&plane), None);
}

#[test]
fn a_driver_without_grants_is_refused_with_advice() {
    let plane = DISK_OF_GRANTS.added();
    bring_up(&plane.bed, true, false);
    plane.settle();
    let sentence = DISK_OF_GRANTS.error(&plane).unwrap();
    assert!(sentence.contains("grant_usage=0") && sentence.contains("XEN_VIRTIO"), "{sentence}");
    assert_eq!(DISK_OF_GRANTS.state(&plane).as_deref(), Some("2"));
}

#[test]
fn a_driver_that_promises_grants_and_names_none_is_told_the_same() {
    let plane = DISK_OF_GRANTS.added();
    let driver = Driver { grants: true, ..Driver::new(&plane.bed, A, BASE) };
    driver.grant_rings();
    [0, 1, 3].iter().for_each(|status| driver.set(register::STATUS, *status));
    driver.set(register::DRIVER_FEATURES_SELECT, 1);
    driver.set(register::DRIVER_FEATURES, 3);
    driver.set(register::STATUS, 11);
    driver.set(register::QUEUE_SIZE, QUEUE_SIZE.into());
    driver.set(register::QUEUE_DESCRIPTORS, DESCRIPTORS);
    driver.set(register::QUEUE_READY, 1);
    plane.settle();
    let sentence = DISK_OF_GRANTS.error(&plane).unwrap();
    assert!(sentence.contains("0x40000000") && sentence.contains("XEN_VIRTIO"), "{sentence}");
    assert_eq!(driver.status() & 64, 64);
    // What makes it give the disk up: no sectors, of a size that cannot be.
    let config = || [0x100, 0x114].map(|register| plane.bed.load(A, 0, BASE + register, 4));
    assert_eq!(config(), [0, 1]);
    driver.set(register::STATUS, 0);
    assert_eq!(config(), [32, 512]);
}

#[test]
fn the_advice_goes_when_a_driver_with_grants_comes() {
    let plane = DISK_OF_GRANTS.added();
    bring_up(&plane.bed, true, false);
    plane.settle();
    bring_up(&plane.bed, true, true);
    plane.settle();
    assert_eq!(DISK_OF_GRANTS.error(&plane), None);
}

#[test]
fn a_driver_that_changes_its_mind_is_not_told_of_for_ever() {
    let plane = DISK_OF_GRANTS.added();
    let mut told = 0;
    for round in 0..4 * NEWS_PER_DEVICE {
        let before = DISK_OF_GRANTS.error(&plane);
        Driver::new(&plane.bed, A, BASE).set(register::STATUS, 0);
        bring_up(&plane.bed, true, round % 2 == 1);
        plane.settle();
        told += usize::from(DISK_OF_GRANTS.error(&plane) != before);
    }
    assert_eq!(told, NEWS_PER_DEVICE);
}

#[test]
fn advice_is_not_written_into_a_directory_that_is_gone() {
    let plane = DISK_OF_GRANTS.added();
    plane.store.borrow_mut().remove(&alloc::format!("{HOME}{}", DISK_OF_GRANTS.path()));
    bring_up(&plane.bed, true, false);
    plane.settle();
    assert_eq!(plane.value(&DISK_OF_GRANTS.path()), None);
}

#[test]
fn a_disk_without_grants_does_not_ask_for_them() {
    let plane = DISK.added();
    bring_up(&plane.bed, false, true);
    plane.settle();
    assert_eq!(DISK.error(&plane), None);
}

#[test]
fn a_table_whose_chain_leaps_about_costs_few_hypercalls() {
    let bed = bed();
    let mut driver = Driver { grants: true, indirect: true, ..Driver::new(&bed, A, BASE) };
    driver.grant_rings();
    driver.start(DESCRIPTORS);
    bed.work();
    driver.grant_buffers(READ);
    let order: Vec<u16> = (0..128).flat_map(|n| [n, 255 - n]).collect();
    let mut table = alloc::vec![0_u8; 4096];
    for (at, next) in order.iter().zip(order.iter().skip(1).map(Some).chain([None])) {
        let entry = &mut table[usize::from(*at) * 16..][..16];
        entry[..8].copy_from_slice(&driver.told(STATUS_BYTE).to_le_bytes());
        let (length, flags, next) = next.map_or((1_u32, 2_u16, 0), |n| (0, 1 | 2, *n));
        entry[8..12].copy_from_slice(&length.to_le_bytes());
        entry[12..14].copy_from_slice(&flags.to_le_bytes());
        entry[14..16].copy_from_slice(&next.to_le_bytes());
    }
    driver.write(DATA, &table);
    driver.descriptor(0, DATA, 4096, 4);
    driver.submitted = 4;
    driver.write(AVAILABLE + 2, &4_u16.to_le_bytes());
    let before = bed.xen.calls(Call::CopyGrant);
    driver.kick();
    bed.work();
    let calls = bed.xen.calls(Call::CopyGrant) - before;
    assert_eq!(driver.used(), 4);
    assert!(calls <= 16, "{calls}");
}
