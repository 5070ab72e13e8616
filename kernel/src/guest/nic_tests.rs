//! NICs in xenstore: they come with an address, are refused with a sentence, and go away.

use alloc::format;
use alloc::string::{String, ToString};

use super::plane::{DISK, Disk, Plane};
use super::*;
use crate::xen::store::tests::fake::HOME;

/// What a NIC says of itself.
const NIC_ID: u64 = 1;
const DEVICE_ID: u64 = 8;

/// A NIC in a guest's configuration.
#[derive(Clone, Copy)]
struct Nic {
    guest: DomainId,
    kind: &'static str,
    /// Position among the guest's virtio devices.
    index: u64,
    /// A node that is written otherwise, or left out.
    changed: (&'static str, Option<&'static str>),
}

/// A NIC of guest A that is in order, behind one disk.
const NIC: Nic = Nic { guest: A, kind: "virtio,device1", index: 1, changed: ("", None) };

impl Nic {
    fn node(&self, leaf: &str) -> String {
        format!("backend/virtio/{}/0/{leaf}", self.guest.0)
    }

    fn base(&self) -> u64 {
        BASE + self.index * DEVICE_BYTES
    }

    /// Writes what libxl writes about it, in libxl's order.
    fn add(&self, plane: &Plane) {
        let (id, base, irq) = (
            self.guest.0.to_string(),
            format!("{:#x}", self.base()),
            (u64::from(IRQ) + self.index).to_string(),
        );
        let nodes = [
            ("frontend-id", &*id),
            ("online", "1"),
            ("state", "1"),
            ("irq", &*irq),
            ("base", &*base),
            ("type", self.kind),
            ("transport", "mmio"),
            ("grant_usage", "0"),
        ];
        for (leaf, value) in nodes {
            let value = if leaf == self.changed.0 { self.changed.1 } else { Some(value) };
            if let Some(value) = value {
                plane.store.borrow_mut().write(&format!("{HOME}{}", self.node(leaf)), value);
            }
        }
        plane.settle();
    }

    fn is_served(&self, plane: &Plane) -> bool {
        plane.value(&self.node("state")).as_deref() == Some("2")
            && plane.bed.load(self.guest, 0, self.base() + DEVICE_ID, 4) == NIC_ID
    }

    fn error(&self, plane: &Plane) -> String {
        assert_eq!(plane.value(&self.node("state")).as_deref(), Some("1"));
        plane.value(&self.node("error")).unwrap()
    }

    fn address(&self, plane: &Plane) -> Option<String> {
        plane.value(&format!("data/nic/{}-0", self.guest.0))
    }
}

#[test]
fn a_nic_is_served_and_its_address_shown() {
    let plane = DISK.added();
    NIC.add(&plane);
    assert!(NIC.is_served(&plane) && DISK.is_served(&plane));
    let address = NIC.address(&plane).unwrap();
    assert!(address.starts_with("00:16:3e:"), "{address}");
}

#[test]
fn a_guest_may_have_a_nic_alone() {
    let plane = Plane::new();
    let nic = Nic { index: 0, ..NIC };
    nic.add(&plane);
    assert!(nic.is_served(&plane));
}

#[test]
fn the_address_of_the_entry_or_of_the_disk_is_taken() {
    let plane = Disk { target: "ram:16K,mac=00:16:3e:00:00:07", ..DISK }.added();
    NIC.add(&plane);
    assert_eq!(NIC.address(&plane).as_deref(), Some("00:16:3e:00:00:07"));
    let own = Nic { guest: B, kind: "virtio,device1/00:16:3e:00:00:08", ..NIC };
    own.add(&plane);
    assert_eq!(own.address(&plane).as_deref(), Some("00:16:3e:00:00:08"));
}

#[test]
fn a_second_nic_with_the_same_address_is_refused_until_the_first_goes() {
    let plane = Plane::new();
    let first = Nic { kind: "virtio,device1/00:16:3e:00:00:08", ..NIC };
    let second = Nic { guest: B, ..first };
    first.add(&plane);
    second.add(&plane);
    let error = second.error(&plane);
    assert!(error.contains("00:16:3e:00:00:08") && error.contains("dom3/net0"), "{error}");
    assert_eq!((plane.bed.xen.servers(B), second.address(&plane)), (0, None));
    assert!(first.is_served(&plane));
    plane.write(&first.node("online"), "0");
    plane.write(&second.node("state"), "1");
    assert!(second.is_served(&plane));
    assert_eq!(plane.value(&second.node("error")), None);
}

#[test]
fn what_is_no_nic_is_refused() {
    for (changed, words) in [
        (("type", Some("virtio,device22")), "virtio,device22"),
        (("base", Some("zero")), "base 'zero'"),
        (("transport", Some("pci")), "transport 'pci'"),
        (("irq", None), "no irq"),
    ] {
        let plane = Plane::new();
        let nic = Nic { changed, ..NIC };
        nic.add(&plane);
        let error = nic.error(&plane);
        assert!(error.contains(words), "{error}");
        assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
    }
}

#[test]
fn a_nic_goes_with_all_that_was_its() {
    let plane = Plane::new();
    NIC.add(&plane);
    plane.write(&NIC.node("online"), "0");
    assert_eq!((plane.value(&NIC.node("state")), NIC.address(&plane)), (None, None));
    assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
}

#[test]
fn a_disk_with_the_number_of_a_nic_is_another_device() {
    let plane = DISK.added();
    NIC.add(&plane);
    plane.write(&NIC.node("online"), "0");
    assert!(DISK.is_served(&plane));
    plane.write(&DISK.node("online"), "0");
    assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
}

#[test]
fn a_nic_that_could_not_be_answered_leaves_no_address() {
    let plane = Plane::new();
    plane.store.borrow_mut().conflicts = u32::MAX;
    NIC.add(&plane);
    assert_eq!((plane.value(&NIC.node("state")).as_deref(), NIC.address(&plane)), (Some("1"), None));
    assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
}
