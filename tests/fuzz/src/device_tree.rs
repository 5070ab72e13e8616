//! The device tree blob: whatever it says, ranges are ranges, and what is passed through is within its limits.

use arbitrary::{Arbitrary, Unstructured};
use kernel::device_tree::Machine;
use kernel::limits::{ADDRESS_LIMIT, PAGE_BYTES, PASSTHROUGH_MAX, REGISTERS_MAX_BYTES};

const DEPTH_MAX: usize = 8;

#[derive(Arbitrary, Debug)]
struct Tree {
    nodes: Vec<Node>,
    scratches: Vec<(u16, u8)>,
    cut_off: Option<u16>,
    /// Nothing of the usual is left out.
    is_complete: bool,
    devices: Vec<Device>,
}

/// A virtio transport by the rules, but for what it says.
#[derive(Arbitrary, Debug)]
struct Device {
    start: u32,
    size: u32,
    upper: u8,
    interrupt: [u8; 3],
    is_incoherent: bool,
    /// Buses more that it is behind.
    buses: u8,
}

#[derive(Arbitrary, Debug)]
struct Node {
    name: u8,
    /// How many nodes are left before it begins.
    ends: u8,
    properties: Vec<(u8, Value)>,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Empty,
    Cells(Vec<u32>),
    Text(u8),
    Raw(Vec<u8>),
    /// Address and size.
    Range(u32, u16),
}

const NODES: [&str; 12] = [
    "memory@40000000",
    "hypervisor",
    "chosen",
    "timer",
    "interrupt-controller@3001000",
    "passthrough",
    "virtio_mmio@a000000",
    "bus@0",
    "memory",
    "x",
    "",
    "passthrough@1",
];
const NAMES: [&str; 16] = [
    "reg",
    "compatible",
    "#address-cells",
    "#size-cells",
    "interrupts",
    "ranges",
    "dma-coherent",
    "status",
    "bootargs",
    "linux,initrd-start",
    "linux,initrd-end",
    "interrupt-controller",
    "#interrupt-cells",
    "interrupt-parent",
    "phandle",
    "x",
];
const TEXTS: [&str; 10] = [
    "virtio,mmio",
    "simple-bus",
    "arm,armv8-timer",
    "arm,gic-v3",
    "arm,cortex-a15-gic",
    "okay",
    "disabled",
    "window=4M ip=dhcp",
    "xen,xen-4.20\0xen,xen",
    "",
];

/// A blob in the making (Devicetree Specification 0.4, chapter 5).
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

    fn begin(&mut self, name: &str) {
        self.word(1);
        self.structure.extend(name.bytes().chain([0]));
        self.pad();
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        self.word(3);
        self.word(value.len() as u32);
        self.word(self.strings.len() as u32);
        self.strings.extend(name.bytes().chain([0]));
        self.structure.extend(value);
        self.pad();
    }

    fn cells(&mut self, name: &str, cells: &[u32]) {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &value);
    }

    /// Begins a bus whose addresses are the machine's.
    fn bus(&mut self, name: &str) {
        self.begin(name);
        self.property("compatible", b"simple-bus\0");
        self.cells("#address-cells", &[2]);
        self.cells("#size-cells", &[2]);
        self.property("ranges", &[]);
    }

    fn finish(mut self) -> Vec<u8> {
        self.word(9);
        let (structure, strings) = (self.structure.len() as u32, self.strings.len() as u32);
        let header =
            [0xd00d_feed, 56 + structure + strings, 56, 56 + structure, 40, 17, 16, 0, strings, structure];
        let mut blob: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        blob.extend([0; 16]);
        blob.extend(self.structure);
        blob.extend(self.strings);
        blob
    }
}

impl Tree {
    fn blob(&self) -> Vec<u8> {
        let mut blob = Blob::default();
        blob.begin("");
        blob.cells("#address-cells", &[2]);
        blob.cells("#size-cells", &[2]);
        if self.is_complete {
            usual(&mut blob);
            if !self.devices.is_empty() {
                blob.bus("passthrough");
                self.devices.iter().take(24).for_each(|device| device.write(&mut blob));
                blob.word(2);
            }
        }
        let mut depth = 1;
        for node in self.nodes.iter().take(64) {
            for _ in 0..usize::from(node.ends).min(depth - 1) {
                blob.word(2);
                depth -= 1;
            }
            if depth < DEPTH_MAX {
                blob.begin(NODES[usize::from(node.name) % NODES.len()]);
                depth += 1;
            }
            node.properties.iter().take(16).for_each(|(name, value)| property(&mut blob, *name, value));
        }
        (0..depth).for_each(|_| blob.word(2));
        let mut bytes = blob.finish();
        for (at, byte) in &self.scratches {
            if let Some(victim) = bytes.get_mut(usize::from(*at)) {
                *victim = *byte;
            }
        }
        bytes.truncate(self.cut_off.map_or(usize::MAX, usize::from));
        bytes
    }
}

impl Device {
    fn write(&self, blob: &mut Blob) {
        let buses = self.buses % 7;
        (0..buses).for_each(|_| blob.bus("bus@0"));
        blob.begin("virtio_mmio@a000000");
        blob.property("compatible", b"virtio,mmio\0");
        let (upper, size) = (u32::from(self.upper), self.size % 0x2_0000);
        blob.cells("reg", &[upper, self.start, 0, size]);
        blob.cells("interrupts", &self.interrupt.map(u32::from));
        if !self.is_incoherent {
            blob.property("dma-coherent", &[]);
        }
        (0..=buses).for_each(|_| blob.word(2));
    }
}

/// What every Xen domain has.
fn usual(blob: &mut Blob) {
    for (name, properties) in [
        ("memory@40000000", &[("reg", &[0, 0x4000_0000, 0, 0x80_0000][..])][..]),
        ("hypervisor", &[("reg", &[0, 0x3800_0000, 0, 0x4_0000, 1, 0, 0, 0x4000_0000])]),
        (
            "interrupt-controller@3001000",
            &[
                ("reg", &[0, 0x300_1000, 0, 0x1000, 0, 0x300_2000, 0, 0x2000]),
                ("#interrupt-cells", &[3]),
                ("interrupt-controller", &[]),
            ],
        ),
    ] {
        blob.begin(name);
        properties.iter().for_each(|(name, cells)| blob.cells(name, cells));
        if name.starts_with("interrupt") {
            blob.property("compatible", b"arm,cortex-a15-gic\0");
        }
        blob.word(2);
    }
    blob.begin("timer");
    blob.property("compatible", b"arm,armv8-timer\0");
    blob.cells("interrupts", &[1, 13, 8, 1, 14, 8, 1, 11, 8]);
    blob.word(2);
}

fn property(blob: &mut Blob, name: u8, value: &Value) {
    let name = NAMES[usize::from(name) % NAMES.len()];
    match value {
        Value::Empty => blob.property(name, &[]),
        Value::Cells(cells) => blob.cells(name, cells),
        Value::Text(text) => {
            let text = TEXTS[usize::from(*text) % TEXTS.len()];
            blob.property(name, &[text.as_bytes(), &[0]].concat());
        }
        Value::Raw(bytes) => blob.property(name, bytes),
        Value::Range(start, size) => blob.cells(name, &[0, *start, 0, (*size).into()]),
    }
}

fn judge(machine: &Machine<'_>) {
    let is_range = |range: &core::ops::Range<u64>| range.start < range.end;
    assert!(!machine.memory.is_empty() && machine.memory.iter().all(is_range));
    assert!(machine.extended_regions.iter().all(is_range) && machine.initrd.iter().all(is_range));
    assert!(machine.passthrough.len() <= PASSTHROUGH_MAX);
    assert!(machine.passthrough_skipped.len() <= PASSTHROUGH_MAX);
    for device in &machine.passthrough {
        let registers = &device.registers;
        assert!(is_range(registers) && registers.end - registers.start <= REGISTERS_MAX_BYTES);
        assert!(registers.end <= ADDRESS_LIMIT as u64);
    }
    let pages = machine.register_pages();
    assert!(pages.is_sorted_by(|one, other| one.end <= other.start), "a page twice");
    assert!(pages.iter().all(|page| page.end - page.start == PAGE_BYTES as u64));
}

/// A blob, made of `data` or `data` itself.
pub fn device_tree(data: &[u8]) {
    if let Ok(machine) = Machine::read(data) {
        judge(&machine);
    }
    let Ok(tree) = Unstructured::new(data).arbitrary::<Tree>() else { return };
    let blob = tree.blob();
    let machine = Machine::read(&blob);
    if let Ok(machine) = &machine {
        judge(machine);
    }
    let is_whole = tree.is_complete && tree.nodes.is_empty() && tree.scratches.is_empty();
    assert!(!is_whole || tree.cut_off.is_some() || machine.is_ok(), "a good tree is refused");
}
