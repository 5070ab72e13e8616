//! Random lives of guests and disks: whoever is served stays served, and who is gone leaves nothing.

use alloc::collections::BTreeMap;
use alloc::format;

use proptest::prelude::*;

use super::plane::{DISK, Disk, Plane};
use super::*;
use crate::xen::fake::Call;
use crate::xen::hypercall::Errno;
use crate::xen::store::tests::fake::HOME;

#[derive(Clone, Copy, Debug)]
enum End {
    Offline,
    Closing,
    /// The directory vanishes without a word.
    Removed,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add {
        guest: DomainId,
        index: u64,
        good: bool,
    },
    /// As `Add`, and Xen refuses a call on the way.
    AddRefused {
        guest: DomainId,
        index: u64,
        call: Call,
        passing: usize,
    },
    Remove {
        guest: DomainId,
        index: u64,
        end: End,
    },
    /// The guest writes a sector and reads it back.
    Use {
        guest: DomainId,
        index: u64,
        content: u8,
    },
    /// The guest gives its buffers back and takes new ones.
    Invalidate {
        guest: DomainId,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let guest = || prop_oneof![Just(A), Just(B)];
    let index = || 0..2_u64;
    let call = prop_oneof![
        Just(Call::CountVcpus),
        Just(Call::CreateServer),
        Just(Call::MapResource),
        Just(Call::SetServerState),
        Just(Call::BindPort),
        Just(Call::ClaimRange),
    ];
    let end = prop_oneof![Just(End::Offline), Just(End::Closing), Just(End::Removed)];
    prop_oneof![
        3 => (guest(), index(), prop::bool::weighted(0.8))
            .prop_map(|(guest, index, good)| Step::Add { guest, index, good }),
        1 => (guest(), index(), call, 0..2_usize)
            .prop_map(|(guest, index, call, passing)| Step::AddRefused { guest, index, call, passing }),
        2 => (guest(), index(), end).prop_map(|(guest, index, end)| Step::Remove { guest, index, end }),
        3 => (guest(), index(), any::<u8>())
            .prop_map(|(guest, index, content)| Step::Use { guest, index, content }),
        1 => guest().prop_map(|guest| Step::Invalidate { guest }),
    ]
}

struct Model {
    plane: Plane,
    /// Disks in xenstore.
    disks: BTreeMap<(DomainId, u64), Life>,
}

#[derive(Clone, Copy)]
struct Life {
    /// It names a volume that there is.
    good: bool,
    served: bool,
}

fn disk(guest: DomainId, index: u64) -> Disk {
    Disk { guest, index, ..DISK }
}

impl Model {
    /// Adds a disk; whether it is new.
    fn add(&mut self, guest: DomainId, index: u64, good: bool) -> bool {
        let fresh = !self.disks.contains_key(&(guest, index));
        if fresh {
            let target = if good { DISK.target } else { "nowhere" };
            let added = Disk { target, ..disk(guest, index) };
            added.add(&self.plane);
            self.plane.settle();
            let served = added.state(&self.plane).as_deref() == Some("2");
            assert!(served || added.error(&self.plane).is_some(), "refused without a word");
            self.disks.insert((guest, index), Life { good, served });
        }
        fresh
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Add { guest, index, good } => {
                let fresh = self.add(guest, index, good);
                assert!(!fresh || self.disks[&(guest, index)].served == good);
            }
            Step::AddRefused { guest, index, call, passing } => {
                self.plane.bed.xen.refuse_all(call, passing, Errno::EPERM);
                self.add(guest, index, true);
                self.plane.bed.xen.allow_all();
            }
            Step::Remove { guest, index, end } => {
                if self.disks.remove(&(guest, index)).is_some() {
                    self.remove(disk(guest, index), end);
                }
            }
            Step::Use { guest, index, content } => {
                if self.disks.get(&(guest, index)).is_some_and(|life| life.served) {
                    let mut driver = Driver::started(&self.plane.bed, guest, disk(guest, index).base());
                    driver.write(DATA, &[content; 512]);
                    assert_eq!(driver.run(WRITE, 3), 0);
                    driver.write(DATA, &[!content; 512]);
                    assert_eq!(driver.run(READ, 3), 0);
                    assert_eq!(self.plane.bed.xen.read_guest(guest, DATA), [content; 512]);
                }
            }
            Step::Invalidate { guest } => {
                if self.is_served(guest) {
                    self.plane.bed.xen.balloon_out(guest, HEADER / 4096..HEADER / 4096 + 3);
                    self.plane.bed.xen.invalidate(guest, 1);
                    self.plane.bed.serve();
                    assert!(matches!(self.plane.bed.xen.outcome(guest, 1), Outcome::Answered(_)));
                    self.plane.bed.xen.populate(guest, HEADER / 4096..HEADER / 4096 + 3);
                }
            }
        }
    }

    fn remove(&self, disk: Disk, end: End) {
        match end {
            End::Offline => self.plane.write(&disk.node("online"), "0"),
            End::Closing => self.plane.write(&disk.node("state"), "5"),
            End::Removed => self.plane.store.borrow_mut().remove(&format!("{HOME}{}", disk.path())),
        }
        self.plane.settle();
        assert_eq!(self.plane.value(&disk.path()), None);
    }

    fn is_served(&self, guest: DomainId) -> bool {
        self.disks.iter().any(|((of, _), life)| *of == guest && life.served)
    }

    fn check(&mut self) {
        for ((guest, index), life) in &mut self.disks {
            // A scan may look again at a disk that was refused for a reason that has passed.
            let served = disk(*guest, *index).is_served(&self.plane);
            assert!(served == life.served || served && life.good);
            life.served = served;
        }
        let xen = &self.plane.bed.xen;
        for guest in [A, B] {
            let served = self.disks.iter().filter(|((of, _), life)| *of == guest && life.served).count();
            assert_eq!(xen.claimed(guest).len(), served);
            assert_eq!(xen.servers(guest), usize::from(served > 0));
            assert!(served > 0 || xen.references(guest) == 0, "pages of {guest} are left");
        }
        assert_eq!(xen.open_ports(), 2 * self.plane.bed.table.borrow().len());
        assert_eq!((xen.leaks().len(), self.plane.result()), (0, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_the_living_are_served_and_the_gone_leave_nothing(
        steps in prop::collection::vec(step(), 0..24),
    ) {
        let mut model = Model { plane: Plane::new(), disks: BTreeMap::new() };
        for step in steps {
            model.take(step);
            model.check();
        }
        // Both guests are destroyed, pages in use or not; then xl takes their disks away.
        [A, B].into_iter().for_each(|guest| model.plane.bed.xen.destroy(guest));
        for (guest, index) in core::mem::take(&mut model.disks).into_keys() {
            model.remove(disk(guest, index), End::Offline);
        }
        prop_assert!(!model.plane.bed.xen.exists(A) && !model.plane.bed.xen.exists(B));
        prop_assert_eq!(model.plane.bed.left(A), (0, 0, 0, 0));
    }
}
