//! Ioreq servers against a small Xen: set up, served, and taken down whatever fails on the way.

use alloc::vec;

use super::*;
use crate::xen::fake::{Call, FakeXen, Outcome, Slot};
use crate::xen::hypercall::Errno;

const GUEST: DomainId = DomainId(3);
const BASE: u64 = 0x200_0000;

struct Bed {
    xen: FakeXen,
    pages: Rc<RefCell<SinglePages>>,
}

fn bed(vcpus: u32) -> Bed {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, vcpus);
    let pages = xen.single_pages();
    Bed { xen, pages }
}

impl Bed {
    fn new_server(&self) -> Result<IoreqServer, HypercallError> {
        IoreqServer::new(GUEST, &self.pages)
    }

    /// A server that has claimed a device's registers.
    fn server(&self) -> IoreqServer {
        let server = self.new_server().unwrap();
        server.change_range(RangeChange::Claim, BASE, BASE + 0x1ff).unwrap();
        self.xen.take_events();
        server
    }

    /// Servers, pages mapped and ports open that are left.
    fn left(&self) -> (usize, usize, usize) {
        assert_eq!(self.pages.borrow().mapped(), self.xen.mapped());
        (self.xen.servers(GUEST), self.xen.mapped(), self.xen.open_ports())
    }

    /// Fails the making of a server for two vCPUs at one step; what is left then.
    fn left_after_failure(call: Call, passing: usize) -> (usize, usize, usize) {
        let bed = bed(2);
        bed.xen.refuse(call, passing, Errno::EPERM);
        assert_eq!(bed.new_server().err().map(|error| error.errno), Some(Errno::EPERM));
        bed.left()
    }
}

#[test]
fn one_vcpu_has_one_port() {
    let bed = bed(1);
    let server = bed.new_server().unwrap();
    assert_eq!((server.ports().count(), bed.left()), (1, (1, 1, 1)));
}

#[test]
fn each_of_four_vcpus_has_its_port() {
    let bed = bed(4);
    let server = bed.server();
    assert!(bed.xen.load(GUEST, 2, BASE, 4));
    let third = server.ports().nth(2).unwrap();
    assert_eq!((bed.xen.take_events(), bed.left()), (vec![third], (1, 1, 4)));
}

#[test]
fn binding_raises_each_port_once() {
    let bed = bed(2);
    let server = bed.new_server().unwrap();
    assert_eq!(bed.xen.take_events(), server.ports().collect::<Vec<_>>());
    assert!(server.take(0).is_none() && server.take(1).is_none());
}

#[test]
fn a_read_is_answered_with_its_value() {
    let bed = bed(2);
    let server = bed.server();
    assert!(bed.xen.load(GUEST, 1, BASE + 0x70, 4));
    assert!(server.take(0).is_none());
    let pending = server.take(1).unwrap();
    assert_eq!(pending.access, Access::Read { address: BASE + 0x70, width: 4 });
    assert_eq!(bed.xen.outcome(GUEST, 1), Outcome::Waiting);
    pending.answer(0x1234);
    assert_eq!(bed.xen.outcome(GUEST, 1), Outcome::Answered(0x1234));
}

#[test]
fn a_write_brings_its_value_and_keeps_it() {
    let bed = bed(1);
    let server = bed.server();
    assert!(bed.xen.store(GUEST, 0, BASE + 0x50, 2, 0xabcd));
    let pending = server.take(0).unwrap();
    assert_eq!(pending.access, Access::Write { address: BASE + 0x50, width: 2, value: 0xabcd });
    pending.answer(7);
    assert_eq!(bed.xen.outcome(GUEST, 0), Outcome::Answered(0xabcd));
}

#[test]
fn an_answered_access_is_not_taken_again() {
    let bed = bed(1);
    let server = bed.server();
    assert!(bed.xen.load(GUEST, 0, BASE, 4));
    server.take(0).unwrap().answer(0);
    assert!(server.take(0).is_none());
}

#[test]
fn a_vcpu_that_was_answered_may_ask_again() {
    let bed = bed(1);
    let server = bed.server();
    assert!(bed.xen.load(GUEST, 0, BASE, 4));
    server.take(0).unwrap().answer(1);
    assert_eq!(bed.xen.outcome(GUEST, 0), Outcome::Answered(1));
    assert!(bed.xen.load(GUEST, 0, BASE + 4, 4));
    server.take(0).unwrap().answer(2);
    assert_eq!(bed.xen.outcome(GUEST, 0), Outcome::Answered(2));
}

#[test]
fn pages_given_back_are_an_access_of_their_own_kind() {
    let bed = bed(1);
    let server = bed.server();
    bed.xen.invalidate(GUEST, 0);
    let pending = server.take(0).unwrap();
    assert_eq!(pending.access, Access::Invalidate);
    pending.answer(0);
    assert_eq!(bed.xen.outcome(GUEST, 0), Outcome::Answered(!0));
}

#[test]
fn an_unknown_kind_can_be_answered() {
    let bed = bed(1);
    let server = bed.server();
    bed.xen.request(GUEST, 0, 0, Slot { state: 1, kind: 7, ..Slot::default() });
    let pending = server.take(0).unwrap();
    assert_eq!(pending.access, Access::Unknown);
    pending.answer(0);
    assert_eq!(bed.xen.slot(GUEST, 0, 0).state, 3);
}

#[test]
fn an_answer_changes_the_state_and_no_other_bit() {
    let bed = bed(1);
    let server = bed.server();
    let before = bed.xen.slot(GUEST, 0, 0);
    let request = Slot { address: BASE, data: 5, size: 4, state: 0b1111_0001, kind: 1, ..before };
    bed.xen.request(GUEST, 0, 0, request);
    server.take(0).unwrap().answer(6);
    assert_eq!(bed.xen.slot(GUEST, 0, 0), Slot { data: 6, state: 0b1111_0011, ..request });
}

#[test]
fn a_slot_in_service_or_answered_is_not_taken() {
    let bed = bed(1);
    let server = bed.server();
    bed.xen.request(GUEST, 0, 0, Slot { state: 2, kind: 1, ..Slot::default() });
    assert!(server.take(0).is_none());
    bed.xen.request(GUEST, 0, 0, Slot { state: 3, kind: 1, ..Slot::default() });
    assert!(server.take(0).is_none());
}

#[test]
fn a_vcpu_that_is_not_there_has_no_request() {
    let bed = bed(1);
    assert!(bed.server().take(1).is_none());
    assert!(bed.server().take(usize::MAX).is_none());
}

#[test]
fn a_released_range_comes_to_us_no_more() {
    let bed = bed(1);
    let server = bed.server();
    server.change_range(RangeChange::Release, BASE, BASE + 0x1ff).unwrap();
    assert!(!bed.xen.load(GUEST, 0, BASE, 4));
}

#[test]
fn a_dropped_server_leaves_nothing() {
    let bed = bed(4);
    drop(bed.server());
    assert_eq!(bed.left(), (0, 0, 0));
}

#[test]
fn a_dropped_server_lets_a_destroyed_guest_go() {
    let bed = bed(2);
    let server = bed.server();
    bed.xen.destroy(GUEST);
    assert!(bed.xen.exists(GUEST));
    drop(server);
    assert!(!bed.xen.exists(GUEST));
    assert_eq!(bed.left(), (0, 0, 0));
}

#[test]
fn an_answer_to_a_destroyed_guest_harms_nobody() {
    let bed = bed(1);
    let server = bed.server();
    assert!(bed.xen.load(GUEST, 0, BASE, 4));
    bed.xen.destroy(GUEST);
    server.take(0).unwrap().answer(0);
    drop(server);
    assert_eq!(bed.left(), (0, 0, 0));
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    assert_eq!(Bed::left_after_failure(Call::CountVcpus, 0), (0, 0, 0));
    assert_eq!(Bed::left_after_failure(Call::CreateServer, 0), (0, 0, 0));
    assert_eq!(Bed::left_after_failure(Call::MapResource, 0), (0, 0, 0));
    assert_eq!(Bed::left_after_failure(Call::SetServerState, 0), (0, 0, 0));
    assert_eq!(Bed::left_after_failure(Call::BindPort, 0), (0, 0, 0));
    assert_eq!(Bed::left_after_failure(Call::BindPort, 1), (0, 0, 0));
}

#[test]
fn a_guest_that_is_not_there_is_refused() {
    let bed = bed(1);
    let error = IoreqServer::new(DomainId(9), &bed.pages).err().unwrap();
    assert_eq!((error.errno, bed.left()), (Errno::ESRCH, (0, 0, 0)));
}

#[test]
fn a_guest_that_the_policy_denies_is_refused() {
    let bed = bed(1);
    bed.xen.deny(GUEST);
    assert_eq!(bed.new_server().err().map(|error| error.errno), Some(Errno::EACCES));
}

#[test]
fn without_memory_for_a_table_nothing_is_left() {
    let bed = bed(1);
    bed.xen.set_pool(0);
    assert_eq!(bed.new_server().err().map(|error| error.errno), Some(Errno::ENOENT));
    assert_eq!(bed.left(), (0, 0, 0));
}

#[test]
fn a_dropped_server_leaves_no_vcpu_waiting() {
    let bed = bed(2);
    let server = bed.server();
    assert!(bed.xen.load(GUEST, 1, BASE, 4));
    drop(server);
    assert_eq!(bed.xen.outcome(GUEST, 1), Outcome::Answered(0));
}
