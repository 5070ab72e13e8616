//! Device trees as libxl makes them, with things missing, and garbage.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// A device tree blob in the making (Devicetree Specification 0.4, chapter 5).
#[derive(Default)]
struct Blob {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Blob {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn node(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.word(1);
        self.structure.extend(name.bytes().chain([0]));
        self.pad();
        content(self);
        self.word(2);
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        self.word(3);
        self.word(value.len().try_into().unwrap());
        self.word(self.strings.len().try_into().unwrap());
        self.strings.extend(name.bytes().chain([0]));
        self.structure.extend(value);
        self.pad();
    }

    fn cells(&mut self, name: &str, cells: &[u32]) {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &value);
    }

    /// Addresses and sizes, two cells each.
    fn ranges(&mut self, ranges: &[(u64, u64)]) {
        let halves = |number: u64| [(number >> 32) as u32, number as u32];
        let cells: Vec<u32> =
            ranges.iter().flat_map(|(start, size)| [halves(*start), halves(*size)]).flatten().collect();
        self.cells("reg", &cells);
    }

    fn finish(mut self) -> Vec<u8> {
        self.word(9);
        let (structure, strings) = (self.structure.len() as u32, self.strings.len() as u32);
        let total = 56 + structure + strings;
        let header = [0xd00d_feed, total, 56, 56 + structure, 40, 17, 16, 0, strings, structure];
        let mut blob: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        blob.extend([0; 16]);
        blob.extend(self.structure);
        blob.extend(self.strings);
        blob
    }
}

/// The head of `/passthrough`, and of any bus whose addresses are the machine's.
fn bus(node: &mut Blob) {
    node.property("compatible", b"simple-bus\0");
    node.cells("#address-cells", &[2]);
    node.cells("#size-cells", &[2]);
    node.property("ranges", b"");
}

/// A virtio transport as QEMU has them: number `transport` of them.
fn transport(node: &mut Blob, transport: u32) {
    node.property("compatible", b"virtio,mmio\0");
    node.ranges(&[(0xa00_0000 + u64::from(transport) * 0x200, 0x200)]);
    node.cells("interrupts", &[0, 16 + transport, 1]);
    node.cells("interrupt-parent", &[0xfde8]);
    node.property("dma-coherent", b"");
}

fn device(transport: u32) -> PassthroughDevice {
    let start = 0xa00_0000 + u64::from(transport) * 0x200;
    PassthroughDevice { registers: start..start + 0x200, interrupt: 48 + transport }
}

/// Devices and skipped nodes of a tree whose `/passthrough` is `content`.
fn passthrough(content: fn(&mut Blob)) -> (Vec<PassthroughDevice>, Vec<String>) {
    let blob = Tree { passthrough: Some(content), ..domain() }.build();
    let machine = Machine::read(&blob).unwrap();
    let skipped = machine.passthrough_skipped.iter().map(|name| String::from(*name));
    (machine.passthrough.to_vec(), skipped.collect())
}

/// Start and size of each range of a `reg`.
type Registers = Vec<(u64, u64)>;

/// What differs between the device trees of these tests.
#[derive(Clone)]
struct Tree {
    banks: Registers,
    hypervisor: Option<Registers>,
    timer: Option<Vec<u32>>,
    passthrough: Option<fn(&mut Blob)>,
    gic: Option<(&'static [u8], Registers)>,
    bootargs: Option<&'static str>,
    initrd: Option<(Vec<u32>, Vec<u32>)>,
}

const GRANT_TABLE: (u64, u64) = (0x3800_0000, 0x100_0000);
const EXTENDED: [(u64, u64); 2] = [(0x4200_0000, 0xbe00_0000), (0x2_0000_0000, 0xfe_0000_0000)];
const GIC_V3: &[u8] = b"arm,gic-v3\0";
const GIC_V2: &[u8] = b"arm,cortex-a15-gic\0arm,cortex-a9-gic\0";

/// A domain with 32 MiB, as Xen 4.20 describes it.
fn domain() -> Tree {
    Tree {
        banks: Vec::from([(0x4000_0000, 32 << 20)]),
        hypervisor: Some(Vec::from([GRANT_TABLE, EXTENDED[0], EXTENDED[1]])),
        timer: Some(Vec::from([1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08])),
        passthrough: None,
        gic: Some((GIC_V3, Vec::from([(0x300_1000, 0x1_0000), (0x302_0000, 0x100_0000)]))),
        bootargs: Some("window=4M log=debug"),
        initrd: None,
    }
}

impl Tree {
    fn build(&self) -> Vec<u8> {
        let mut blob = Blob::default();
        blob.node("", |root| {
            root.cells("#address-cells", &[2]);
            root.cells("#size-cells", &[2]);
            root.cells("interrupt-parent", &[65000]);
            root.property("compatible", b"xen,xenvm-4.20\0xen,xenvm\0");
            root.node("chosen", |chosen| self.chosen(chosen));
            root.node("cpus", |cpus| {
                cpus.cells("#address-cells", &[1]);
                cpus.cells("#size-cells", &[0]);
                cpus.node("cpu@0", |cpu| cpu.cells("reg", &[0]));
            });
            for bank in &self.banks {
                root.node(&format!("memory@{:x}", bank.0), |memory| {
                    memory.property("device_type", b"memory\0");
                    memory.ranges(&[*bank]);
                });
            }
            if let Some((compatible, registers)) = &self.gic {
                root.node("interrupt-controller@3001000", |gic| {
                    gic.property("compatible", compatible);
                    gic.cells("#interrupt-cells", &[3]);
                    gic.property("interrupt-controller", b"");
                    gic.ranges(registers);
                    gic.cells("phandle", &[65000]);
                });
            }
            if let Some(regions) = &self.hypervisor {
                root.node("hypervisor", |hypervisor| {
                    hypervisor.property("compatible", b"xen,xen-4.20\0xen,xen\0");
                    hypervisor.ranges(regions);
                    hypervisor.cells("interrupts", &[1, 15, 0xf08]);
                });
            }
            if let Some(interrupts) = &self.timer {
                root.node("timer", |timer| {
                    timer.property("compatible", b"arm,armv8-timer\0");
                    timer.cells("interrupts", interrupts);
                });
            }
            if let Some(content) = self.passthrough {
                root.node("passthrough", content);
            }
        });
        blob.finish()
    }

    fn chosen(&self, chosen: &mut Blob) {
        if let Some(bootargs) = self.bootargs {
            let value: String = format!("{bootargs}\0");
            chosen.property("bootargs", value.as_bytes());
        }
        if let Some((start, end)) = &self.initrd {
            chosen.cells("linux,initrd-start", start);
            chosen.cells("linux,initrd-end", end);
        }
    }

    fn missing(&self) -> &'static str {
        match Machine::read(&self.build()) {
            Err(DeviceTreeError::Missing(what)) => what,
            other => panic!("{other:?}"),
        }
    }
}

fn bytes((start, size): (u64, u64)) -> Range<u64> {
    start..start + size
}

#[test]
fn a_domain_is_read_as_xl_describes_it() {
    let blob = domain().build();
    let machine = Machine::read(&blob).unwrap();
    assert_eq!(machine.memory[..], [bytes((0x4000_0000, 32 << 20))]);
    assert_eq!(machine.extended_regions[..], EXTENDED.map(bytes));
    assert_eq!(machine.timer_interrupt, 27);
    assert!(machine.passthrough.is_empty() && machine.passthrough_skipped.is_empty());
    assert_eq!((machine.initrd, machine.command_line), (None, "window=4M log=debug"));
    let gic = InterruptController::V3 { distributor: 0x300_1000, redistributor: 0x302_0000 };
    assert_eq!(machine.interrupt_controller, gic);
}

#[test]
fn a_gicv2_has_a_cpu_interface() {
    let registers = Vec::from([(0x300_1000, 0x1000), (0x300_2000, 0x2000)]);
    let blob = Tree { gic: Some((GIC_V2, registers)), ..domain() }.build();
    let gic = InterruptController::V2 { distributor: 0x300_1000, cpu_interface: 0x300_2000 };
    assert_eq!(Machine::read(&blob).unwrap().interrupt_controller, gic);
}

#[test]
fn both_banks_of_ram_are_found() {
    let banks = Vec::from([(0x4000_0000, 0xc000_0000), (0x2_0000_0000, 0x4000_0000)]);
    let blob = Tree { banks: banks.clone(), ..domain() }.build();
    assert_eq!(Machine::read(&blob).unwrap().memory[..], [bytes(banks[0]), bytes(banks[1])]);
}

#[test]
fn a_domain_may_have_no_extended_region() {
    let blob = Tree { hypervisor: Some(Vec::from([GRANT_TABLE])), ..domain() }.build();
    assert!(Machine::read(&blob).unwrap().extended_regions.is_empty());
}

#[test]
fn an_initrd_is_found_by_one_cell_or_two() {
    let expected = Some(0x4100_0000..0x4110_0000);
    let short = Tree { initrd: Some((vec![0x4100_0000], vec![0x4110_0000])), ..domain() }.build();
    let long = Tree { initrd: Some((vec![0, 0x4100_0000], vec![0, 0x4110_0000])), ..domain() }.build();
    assert_eq!(Machine::read(&short).unwrap().initrd, expected);
    assert_eq!(Machine::read(&long).unwrap().initrd, expected);
}

#[test]
fn an_initrd_without_bytes_or_of_odd_cells_is_none() {
    let empty = Tree { initrd: Some((vec![0x4100_0000], vec![0x4100_0000])), ..domain() }.build();
    let odd = Tree { initrd: Some((vec![0; 3], vec![1; 3])), ..domain() }.build();
    assert_eq!(Machine::read(&empty).unwrap().initrd, None);
    assert_eq!(Machine::read(&odd).unwrap().initrd, None);
}

#[test]
fn no_command_line_is_an_empty_one() {
    let blob = Tree { bootargs: None, ..domain() }.build();
    assert_eq!(Machine::read(&blob).unwrap().command_line, "");
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(Tree { banks: Vec::new(), ..domain() }.missing(), "memory");
    assert_eq!(Tree { hypervisor: None, ..domain() }.missing(), "/hypervisor: not a Xen domain?");
    let (short, odd) = (Vec::from([1, 13, 0xf08]), Vec::from([1, 13, 0, 1, 14, 0, 2, 0, 0]));
    for timer in [None, Some(short), Some(odd)] {
        assert_eq!(Tree { timer, ..domain() }.missing(), "the virtual timer's interrupt");
    }
    assert_eq!(Tree { gic: None, ..domain() }.missing(), "an interrupt controller");
    assert_eq!(
        Tree { gic: Some((GIC_V3, Vec::from([(1, 1)]))), ..domain() }.missing(),
        "the GIC's registers"
    );
}

#[test]
fn an_interrupt_controller_of_another_kind_is_refused() {
    let registers = Vec::from([(0x300_1000, 0x1000), (0x300_2000, 0x2000)]);
    let tree = Tree { gic: Some((b"arm,gic-v9\0", registers)), ..domain() };
    assert_eq!(tree.missing(), "a GICv2 or GICv3");
}

#[test]
fn passed_through_devices_are_found_in_order_at_any_depth() {
    let (devices, skipped) = passthrough(|node| {
        bus(node);
        node.node("virtio@a000200", |node| transport(node, 1));
        node.node("soc", |node| {
            bus(node);
            node.node("virtio@a000600", |node| transport(node, 3));
        });
        node.node("clock", |node| node.property("compatible", b"fixed-clock\0"));
        node.node("virtio@a000000", |node| transport(node, 0));
    });
    assert_eq!(devices, [device(1), device(3), device(0)]);
    assert!(skipped.is_empty());
}

#[test]
fn a_page_of_registers_is_named_once() {
    let passthrough: fn(&mut Blob) = |node| {
        bus(node);
        for number in [8, 0, 7, 9] {
            node.node(&format!("virtio{number}"), |node| transport(node, number));
        }
    };
    let blob = Tree { passthrough: Some(passthrough), ..domain() }.build();
    let pages = Machine::read(&blob).unwrap().register_pages();
    assert_eq!(pages, [bytes((0xa00_0000, 0x1000)), bytes((0xa00_1000, 0x1000))]);
}

#[test]
fn a_disabled_device_is_none() {
    let (devices, skipped) = passthrough(|node| {
        bus(node);
        node.node("virtio@a000000", |node| {
            transport(node, 0);
            node.property("status", b"disabled\0");
        });
        node.node("virtio@a000200", |node| {
            transport(node, 1);
            node.property("status", b"okay\0");
        });
    });
    assert_eq!((devices, skipped.len()), (vec![device(1)], 0));
}

#[test]
fn a_badly_described_device_is_named_and_skipped() {
    let (devices, skipped) = passthrough(|node| {
        bus(node);
        node.node("no-registers", |node| {
            node.property("compatible", b"virtio,mmio\0");
            node.cells("interrupts", &[0, 16, 1]);
            node.property("dma-coherent", b"");
        });
        node.node("no-interrupt", |node| {
            node.property("compatible", b"virtio,mmio\0");
            node.property("dma-coherent", b"");
            node.ranges(&[(0xa00_0000, 0x200)]);
        });
        node.node("incoherent", |node| {
            node.property("compatible", b"virtio,mmio\0");
            node.ranges(&[(0xa00_0000, 0x200)]);
            node.cells("interrupts", &[0, 16, 1]);
        });
        node.node("endless", |node| {
            node.property("compatible", b"virtio,mmio\0");
            node.ranges(&[(0xa00_0000, 1 << 40)]);
            node.cells("interrupts", &[0, 16, 1]);
            node.property("dma-coherent", b"");
        });
        node.node("far-away", |node| {
            node.property("compatible", b"virtio,mmio\0");
            node.ranges(&[(u64::MAX - 0x1ff, 0x1ff)]);
            node.cells("interrupts", &[0, 16, 1]);
            node.property("dma-coherent", b"");
        });
        node.node("virtio@a000400", |node| transport(node, 2));
    });
    assert_eq!(devices, [device(2)]);
    assert_eq!(skipped, ["no-registers", "no-interrupt", "incoherent", "endless", "far-away"]);
}

#[test]
fn a_bus_with_addresses_of_its_own_is_skipped() {
    let (devices, skipped) = passthrough(|node| {
        bus(node);
        node.node("soc", |node| {
            node.property("compatible", b"simple-bus\0");
            node.cells("#address-cells", &[2]);
            node.cells("#size-cells", &[2]);
            node.node("virtio@a000600", |node| transport(node, 3));
        });
    });
    assert_eq!((devices.len(), skipped), (0, vec![String::from("soc")]));
}

#[test]
fn more_devices_than_fit_are_skipped() {
    let (devices, skipped) = passthrough(|node| {
        bus(node);
        for number in 0..20 {
            node.node(&format!("virtio{number}"), |node| transport(node, number));
        }
    });
    assert_eq!(devices.len(), PASSTHROUGH_MAX);
    assert_eq!(skipped, ["virtio16", "virtio17", "virtio18", "virtio19"]);
}

#[test]
fn a_bank_that_wraps_around_or_is_empty_is_no_ram() {
    let banks = Vec::from([(0x4000_0000, 0), (u64::MAX - 0xfff, 0x2000)]);
    assert_eq!(Tree { banks, ..domain() }.missing(), "memory");
}

#[test]
fn what_is_no_device_tree_is_malformed() {
    let blob = domain().build();
    assert_eq!(Machine::read(&[]).unwrap_err(), DeviceTreeError::Malformed);
    assert_eq!(Machine::read(&[0; 64]).unwrap_err(), DeviceTreeError::Malformed);
    assert_eq!(Machine::read(&blob[..blob.len() - 1]).unwrap_err(), DeviceTreeError::Malformed);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Machine::read(&bytes);
    }

    /// A blob with a few bytes changed is still mostly a device tree, so it gets far.
    #[test]
    fn a_damaged_device_tree_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let passthrough: fn(&mut Blob) = |node| {
            bus(node);
            node.node("virtio@a000000", |node| transport(node, 0));
        };
        let initrd = Some((vec![1], vec![2]));
        let mut blob = Tree { initrd, passthrough: Some(passthrough), ..domain() }.build();
        for (place, value) in damage {
            let place = place.index(blob.len());
            blob[place] = value;
        }
        let _ = Machine::read(&blob);
    }
}
