//! Lives of this kernel, one after the other, in the same domain: nothing that one held is lost, and nobody waits for ever.
//!
//! A life ends as the real one does: nothing is undone at Xen, and what it knew is gone but for the handover area. One that
//! ends in the middle of its work runs on a thread of its own, which stops there for good.

use drivers::block::{Begun, Geometry, Operation, Tag, Volume};
use drivers::guest::PinnedMemory;

use super::lives_bed::{SECTORS, World, attach_second, attach_volume, end, live_until};
use super::*;
use crate::arch::whole;
use crate::mm::address::Gfn;
use crate::restart::words::Word;
use crate::xen::fake::Slot;
use crate::xen::grant::{self, Mapped};

const READY: u8 = 1;

/// A volume that is never done with anything.
struct Stuck;

impl<P: PinnedMemory> Volume<P> for Stuck {
    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: SECTORS as u64,
            block_bytes: 512,
            read_only: false,
            has_cache: false,
            transfer_bytes_max: 4096,
            discard_sectors_max: 1,
            write_zeroes_sectors_max: 1,
        }
    }

    fn begin(&mut self, _: Tag, _: Operation, _: &P, _: u32) -> Begun {
        Begun::Pending
    }
}

#[test]
fn who_waited_is_answered_after_the_attach_and_not_before() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    world.start_all(&bed);
    end(bed);
    for vcpu in [0, 1] {
        assert!(world.xen.load(A, vcpu, BASE, 4));
    }
    let bed = world.begin();
    bed.serve();
    assert_eq!([0, 1].map(|vcpu| world.xen.outcome(A, vcpu)), [Outcome::Waiting; 2]);
    // Somebody else's device is there again, which is not theirs.
    world.attach(&bed, B).unwrap();
    bed.work();
    assert_eq!([0, 1].map(|vcpu| world.xen.outcome(A, vcpu)), [Outcome::Waiting; 2]);
    world.attach(&bed, A).unwrap();
    assert_eq!([0, 1].map(|vcpu| world.xen.outcome(A, vcpu)), [Outcome::Answered(MAGIC); 2]);
    world.assert_clean_without_guests(&bed);
}

#[test]
fn requests_under_way_are_answered_once() {
    let world = World::new();
    let bed = world.begin();
    attach_volume(&bed, A, Sharing::Foreign, Box::new(Stuck)).unwrap();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.publish(READ, 0);
    driver.kick();
    let _ = bed.table.borrow_mut().work();
    assert_eq!(driver.used(), 0);
    let edges = world.xen.edges(A, IRQ);
    end(bed);
    let bed = world.begin();
    world.attach(&bed, A).unwrap();
    bed.work();
    let mut driver = Driver { submitted: 1, ..Driver::new(&bed, A, BASE) };
    assert_eq!((driver.used(), world.xen.read_guest(A, STATUS_BYTE)), (1, [0]));
    assert!(world.xen.edges(A, IRQ) > edges);
    bed.work();
    assert_eq!(driver.used(), 1);
    assert_eq!(driver.run(READ, 1), 0);
    world.assert_clean_without_guests(&bed);
}

#[test]
fn a_guest_that_died_between_lives_leaves_nothing() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    world.start_all(&bed).iter_mut().for_each(|driver| assert_eq!(driver.run(READ, 0), 0));
    end(bed);
    world.xen.destroy(A);
    assert!(world.xen.exists(A));
    let bed = world.begin();
    assert_eq!((bed.table.borrow().len(), world.xen.open_ports()), (1, 2));
    while bed.table.borrow().pager().borrow_mut().clean() {}
    assert!(!world.xen.exists(A), "its pages are held");
    world.attach(&bed, B).unwrap();
    let mut driver = Driver { grants: true, submitted: 1, ..Driver::new(&bed, B, BASE) };
    assert_eq!(driver.run(READ, 0), 0);
    world.assert_clean_without_guests(&bed);
}

#[test]
fn a_device_that_is_gone_from_xenstore_is_released_and_who_waits_is_answered() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    end(bed);
    assert!(world.xen.load(A, 0, BASE, 4));
    let bed = world.begin();
    bed.table.borrow_mut().find(A).unwrap().detach(DeviceId::Disk(0));
    assert_eq!(world.xen.outcome(A, 0), Outcome::Answered(0));
    assert_eq!((world.xen.claimed(A), world.area.find(A, DeviceId::Disk(0)).is_none()), (vec![], true));
    assert!(bed.table.borrow_mut().find(A).unwrap().is_idle());
    world.assert_clean_without_guests(&bed);
}

#[test]
fn an_abandoned_device_reads_as_zeroes() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    end(bed);
    assert!(world.xen.load(A, 1, BASE, 4));
    let bed = world.begin();
    bed.table.borrow_mut().find(A).unwrap().abandon(DeviceId::Disk(0));
    assert_eq!(world.xen.outcome(A, 1), Outcome::Answered(0));
    assert_eq!(bed.load(A, 1, BASE, 4), 0);
    bed.store(A, 0, BASE + register::STATUS, 1);
    assert_eq!(bed.load(A, 0, BASE + register::STATUS, 4), 0);
    world.assert_clean_without_guests(&bed);
}

#[test]
fn granted_rings_are_unmapped_by_handle_and_mapped_again() {
    let world = World::new();
    let bed = world.begin();
    world.attach(&bed, A).unwrap();
    world.attach(&bed, B).unwrap();
    assert_eq!(world.start_all(&bed)[1].run(READ, 0), 0);
    end(bed);
    assert_eq!(world.xen.grant_mappings(), 3);
    let bed = world.begin();
    assert_eq!(world.xen.grant_mappings(), 0);
    world.attach_all(&bed);
    assert_eq!(world.xen.grant_mappings(), 3);
    let mut driver = Driver { grants: true, submitted: 1, ..Driver::new(&bed, B, BASE) };
    assert_eq!(driver.run(READ, 0), 0);
    world.assert_clean_without_guests(&bed);
}

/// The granted pages that the notes tell of.
fn noted_grants(world: &World) -> Vec<(&'static Word, Mapped)> {
    let first = Gfn::containing(world.xen.space().start);
    let granted = |(index, note): (u64, &'static Word)| {
        let word = note.get().filter(|word| word & 3 == 3)?;
        Some((note, Mapped { gfn: Gfn(first.0 + index), handle: (word >> 2) as u32, bus_address: 0 }))
    };
    (0..).zip(world.area.singles).filter_map(granted).collect()
}

#[test]
fn a_handle_that_is_stale_is_never_tried_again() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    world.start_all(&bed);
    end(bed);
    // The end came after Xen unmapped them and before that was noted.
    let stale = noted_grants(&world);
    assert_eq!(stale.len(), 3);
    stale.iter().for_each(|(_, mapped)| grant::unmap(&[*mapped], |_, result| result.unwrap()));
    // Their handles go to others in the next life, and stay with them in the one after it.
    for _ in 0..2 {
        let bed = world.begin();
        assert!(stale.iter().all(|(note, _)| note.is_damaged()));
        world.attach_all(&bed);
        assert_eq!((world.xen.grant_mappings(), world.xen.leaks()), (3, vec![]));
        let again = noted_grants(&world);
        assert!(again.iter().all(|(_, one)| stale.iter().all(|(_, other)| one.gfn != other.gfn)));
        end(bed);
    }
    let bed = world.begin();
    assert_eq!((world.xen.grant_mappings(), world.xen.leaks()), (0, vec![]));
    drop(bed);
}

#[test]
fn an_answer_that_was_not_told_is_told() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    end(bed);
    assert!(world.xen.load(A, 1, BASE, 4));
    let answered = Slot { state: 3 | 1 << 4, data: MAGIC, size: 4, ..world.xen.slot(A, 0, 1) };
    world.xen.request(A, 0, 1, answered);
    assert_eq!(world.xen.outcome(A, 1), Outcome::Waiting);
    let bed = world.begin();
    assert_eq!(world.xen.outcome(A, 1), Outcome::Answered(MAGIC));
    world.assert_clean_without_guests(&bed);
}

#[test]
fn who_waits_for_no_device_is_answered_at_once() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    end(bed);
    world.xen.invalidate(A, 1);
    assert!(world.xen.load(A, 0, BASE, 4));
    // The life before had taken the events.
    world.xen.take_events();
    let bed = world.begin();
    assert!(matches!(world.xen.outcome(A, 1), Outcome::Answered(_)));
    assert_eq!(world.xen.outcome(A, 0), Outcome::Waiting);
    world.assert_clean_without_guests(&bed);
}

/// A life of all that there is: guests are served, one of them loses its disk, and goes.
fn whole_life(world: &World) {
    let bed = world.begin();
    world.attach_all(&bed);
    attach_second(&bed);
    for mut driver in world.start_all(&bed) {
        driver.write(DATA, &[1; 512]);
        assert_eq!(driver.run(WRITE, 0), 0);
        assert_eq!(bed.load(driver.domain, 1, BASE, 4), MAGIC);
    }
    world.xen.invalidate(A, 1);
    bed.serve();
    bed.table.borrow().pager().borrow_mut().drop_stale();
    bed.table.borrow_mut().find(B).unwrap().detach(DeviceId::Disk(0));
    [A, B].into_iter().for_each(|domain| bed.table.borrow_mut().remove(domain));
}

#[test]
fn a_life_may_end_at_any_hypercall() {
    for last in 0.. {
        let world = World::new();
        let is_ended = live_until(&world, last, whole_life);
        let bed = world.begin();
        world.attach_all(&bed);
        attach_second(&bed);
        bed.work();
        world.assert_all_answered();
        for mut driver in world.start_all(&bed) {
            assert_eq!(driver.run(READ, 0), 0, "step {last}");
        }
        world.assert_clean_without_guests(&bed);
        if !is_ended {
            assert!(last > 40, "{last} steps are no life");
            break;
        }
    }
}

/// A life that goes on where another stopped.
fn second_life(world: &World) {
    let bed = world.begin();
    bed.serve();
    world.attach_all(&bed);
    bed.table.borrow_mut().find(A).unwrap().detach(DeviceId::Disk(1));
    bed.work();
    end(bed);
}

#[test]
fn a_life_that_ends_as_it_takes_over_is_taken_over() {
    for last in 0.. {
        let world = World::new();
        let bed = world.begin();
        world.attach_all(&bed);
        attach_second(&bed);
        for mut driver in world.start_all(&bed) {
            assert_eq!(driver.run(READ, 0), 0);
            driver.publish(READ, 1);
        }
        end(bed);
        for domain in [A, B] {
            assert!(world.xen.store(domain, 0, BASE + register::QUEUE_NOTIFY, 4, 0));
            assert!(world.xen.load(domain, 1, BASE, 4));
        }
        let is_ended = live_until(&world, last, second_life);
        let bed = world.begin();
        world.attach_all(&bed);
        attach_second(&bed);
        bed.work();
        world.assert_all_answered();
        for domain in [A, B] {
            assert!([0, 1].iter().all(|vcpu| world.xen.slot(domain, 0, *vcpu).state & 15 != READY));
            let mut driver = Driver { grants: domain == B, submitted: 2, ..Driver::new(&bed, domain, BASE) };
            assert_eq!((driver.used(), world.xen.read_guest(domain, STATUS_BYTE)), (2, [0]), "step {last}");
            assert_eq!(driver.run(READ, 2), 0);
        }
        assert_eq!(bed.load(A, 0, BASE + DEVICE_BYTES, 4), MAGIC);
        world.assert_clean_without_guests(&bed);
        if !is_ended {
            assert!(last > 20, "{last} steps are no life");
            break;
        }
    }
}

#[test]
fn steps_that_belong_together_are_not_cut() {
    let outer = whole::Whole::begin();
    drop(whole::Whole::begin());
    assert!(whole::tests::is_whole());
    drop(outer);
    assert!(!whole::tests::is_whole());
}

#[test]
fn an_abandoned_device_is_there_until_it_is_detached() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    end(bed);
    let bed = world.begin();
    bed.table.borrow_mut().find(A).unwrap().abandon(DeviceId::Disk(0));
    end(bed);
    let bed = world.begin();
    assert_eq!(bed.load(A, 0, BASE, 4), 0);
    {
        let mut table = bed.table.borrow_mut();
        let guest = table.find(A).unwrap();
        assert_eq!((guest.held().next(), guest.abandoned().next()), (None, Some(DeviceId::Disk(0))));
        assert!(!guest.is_idle());
        guest.detach(DeviceId::Disk(0));
        assert!(guest.is_idle());
    }
    assert_eq!(world.xen.claimed(A), vec![]);
    world.attach(&bed, A).unwrap();
    assert_eq!(bed.load(A, 0, BASE, 4), MAGIC);
    world.assert_clean_without_guests(&bed);
}

#[test]
fn a_guest_that_is_given_up_reads_zeroes_in_each_life() {
    let world = World::new();
    let bed = world.begin();
    world.attach_all(&bed);
    end(bed);
    world.area.find(A, DeviceId::Disk(0)).unwrap().blame.set(blame::GIVE_UP_AT);
    assert!(world.xen.load(A, 0, BASE, 4));
    let bed = world.begin();
    assert_eq!(world.attach(&bed, A).map_err(|error| error.operation), Err(blame::GIVEN_UP));
    assert_eq!(world.xen.outcome(A, 0), Outcome::Answered(0));
    // With its last device it is not idle: it does not go yet.
    assert!(!bed.table.borrow_mut().find(A).unwrap().is_idle());
    end(bed);
    let bed = world.begin();
    assert_eq!(bed.load(A, 0, BASE, 4), 0);
    end(bed);
    world.assert_clean_without_guests(&world.begin());
}
