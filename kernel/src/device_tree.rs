//! The few facts that the kernel reads from the device tree that `xl` made for this domain.

use alloc::vec::Vec;
use core::ops::Range;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Cells, Node, Property};
use smallvec::SmallVec;

use crate::limits::{ADDRESS_LIMIT, PAGE_BYTES, PASSTHROUGH_MAX, REGISTERS_MAX_BYTES};

/// Ranges of guest-physical addresses, in bytes.
pub type Ranges = SmallVec<[Range<u64>; 4]>;

/// What this domain is made of.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Banks of RAM.
    pub memory: Ranges,
    /// Unpopulated address space that may be used to map pages of others (`/hypervisor`, `reg` from 1 on).
    pub extended_regions: Ranges,
    /// Registers of the interrupt controller.
    pub interrupt_controller: InterruptController,
    /// Interrupt number (GIC INTID) of the virtual timer.
    pub timer_interrupt: u32,
    /// The same of the physical timer.
    pub physical_timer_interrupt: u32,
    /// Physical devices passed through to this domain, in the order of the device tree.
    pub passthrough: SmallVec<[PassthroughDevice; PASSTHROUGH_MAX]>,
    /// Names of nodes that describe such a device badly, or one too many or not coherent, or a bus with addresses of
    /// its own.
    pub passthrough_skipped: SmallVec<[&'a str; PASSTHROUGH_MAX]>,
    /// The file given by `ramdisk=`.
    pub initrd: Option<Range<u64>>,
    /// The command line given by `extra=`.
    pub command_line: &'a str,
}

/// A virtio device of the machine that is ours alone: a `virtio,mmio` node (Linux, bindings/virtio/mmio.yaml) of the
/// partial device tree that `device_tree=` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassthroughDevice {
    /// Addresses of its registers.
    pub registers: Range<u64>,
    /// Its interrupt number (GIC INTID).
    pub interrupt: u32,
}

/// Where the interrupt controller's registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptController {
    /// GICv2.
    V2 {
        /// Address of the distributor.
        distributor: u64,
        /// Address of the CPU interface.
        cpu_interface: u64,
    },
    /// GICv3.
    V3 {
        /// Address of the distributor.
        distributor: u64,
        /// Address of the first redistributor.
        redistributor: u64,
    },
}

/// What is missing or wrong in the device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceTreeError {
    /// Not a device tree.
    #[error("no valid device tree was handed over")]
    Malformed,
    /// A node or property that every Xen domain has is not there.
    #[error("the device tree lacks {0}")]
    Missing(&'static str),
}

/// Offset of private peripheral interrupts and of shared interrupts in the GIC's numbers, for the first cell of an
/// `interrupts` entry (Linux, bindings/interrupt-controller/arm,gic.yaml).
const SHARED_BASE: u32 = 32;
const PRIVATE_BASE: u32 = 16;

/// Positions of the timers' interrupts (Linux, bindings/timer/arm,arch_timer.yaml): the secure physical timer's is the first.
const PHYSICAL_TIMER: usize = 1;
const VIRTUAL_TIMER: usize = 2;

/// Buses inside buses that are looked into.
const BUS_DEPTH_MAX: usize = 4;

impl<'a> Machine<'a> {
    /// Reads the facts out of the blob `data`.
    ///
    /// # Errors
    /// [`DeviceTreeError`], naming what is missing.
    pub fn read(data: &'a [u8]) -> Result<Self, DeviceTreeError> {
        let tree = Fdt::new(data).map_err(|_| DeviceTreeError::Malformed)?;
        let root = tree.root();
        let mut memory = Ranges::new();
        for node in root.children().filter(|node| node.name_without_address() == "memory") {
            memory.extend(reg(node));
        }
        if memory.is_empty() {
            return Err(DeviceTreeError::Missing("memory"));
        }
        let hypervisor =
            root.child("hypervisor").ok_or(DeviceTreeError::Missing("/hypervisor: not a Xen domain?"))?;
        let chosen = root.child("chosen");
        let command_line = chosen.and_then(|node| string(node, "bootargs")).unwrap_or_default();
        let initrd = chosen
            .and_then(|node| Some(number(node, "linux,initrd-start")?..number(node, "linux,initrd-end")?));
        let timer = root.children().find(|node| node.is_compatible("arm,armv8-timer"));
        let mut machine = Self {
            memory,
            extended_regions: reg(hypervisor).skip(1).collect(),
            interrupt_controller: interrupt_controller(root)?,
            timer_interrupt: timer
                .and_then(|node| interrupt(node, VIRTUAL_TIMER))
                .ok_or(DeviceTreeError::Missing("the virtual timer's interrupt"))?,
            physical_timer_interrupt: timer
                .and_then(|node| interrupt(node, PHYSICAL_TIMER))
                .ok_or(DeviceTreeError::Missing("the physical timer's interrupt"))?,
            passthrough: SmallVec::new(),
            passthrough_skipped: SmallVec::new(),
            initrd: initrd.filter(|range| !range.is_empty()),
            command_line,
        };
        if let Some(bus) = root.child("passthrough") {
            machine.read_bus(bus, BUS_DEPTH_MAX);
        }
        Ok(machine)
    }

    /// The pages that hold registers of passed-through devices, each of them once. Takes memory from the heap.
    #[must_use]
    pub fn register_pages(&self) -> Vec<Range<u64>> {
        const PAGE: u64 = PAGE_BYTES as u64;
        let mut pages: Vec<u64> = Vec::new();
        for Range { start, end } in self.passthrough.iter().map(|device| device.registers.clone()) {
            pages.extend(start / PAGE..end.div_ceil(PAGE));
        }
        pages.sort_unstable();
        pages.dedup();
        pages.into_iter().map(|page| page * PAGE..(page + 1) * PAGE).collect()
    }

    /// Finds the devices on a bus, and on the buses on it.
    fn read_bus(&mut self, bus: FdtNode<'a>, depth: usize) {
        // Devicetree Specification 0.4, 2.3.8: an empty `ranges` says that addresses on the bus are those of the
        // machine.
        if !bus.property("ranges").is_some_and(|ranges| ranges.value().is_empty()) {
            return self.skip(bus);
        }
        for node in bus.children().filter(|node| is_enabled(*node)) {
            if node.is_compatible("virtio,mmio") {
                match passthrough_device(node) {
                    // No more than fit: there is no heap yet.
                    Some(device) if self.passthrough.len() < PASSTHROUGH_MAX => self.passthrough.push(device),
                    _ => self.skip(node),
                }
            } else if depth > 0 && node.is_compatible("simple-bus") {
                self.read_bus(node, depth - 1);
            }
        }
    }

    fn skip(&mut self, node: FdtNode<'a>) {
        if self.passthrough_skipped.len() < PASSTHROUGH_MAX {
            self.passthrough_skipped.push(node.name());
        }
    }
}

/// Devicetree Specification 0.4, 2.3.4.
fn is_enabled(node: FdtNode<'_>) -> bool {
    !matches!(string(node, "status"), Some(status) if status != "okay" && status != "ok")
}

/// None also for a device that does not see our caches: the memory that it gets is cached.
fn passthrough_device(node: FdtNode<'_>) -> Option<PassthroughDevice> {
    node.property("dma-coherent")?;
    let registers = reg(node).next()?;
    let fits =
        registers.end - registers.start <= REGISTERS_MAX_BYTES && registers.end <= ADDRESS_LIMIT as u64;
    fits.then_some(PassthroughDevice { registers, interrupt: interrupt(node, 0)? })
}

fn reg(node: FdtNode<'_>) -> impl Iterator<Item = Range<u64>> + '_ {
    node.reg().ok().flatten().into_iter().flatten().filter_map(|entry| {
        let start: u64 = entry.address().ok()?;
        let size: u64 = entry.size().ok()?;
        Some(start..start.checked_add(size)?).filter(|range| !range.is_empty())
    })
}

fn string<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a str> {
    node.property(name)?.value_as::<&str>().ok()
}

/// A number of one or two cells.
fn number(node: FdtNode<'_>, name: &str) -> Option<u64> {
    match node.property(name)?.value() {
        value if value.len() == 4 => value.try_into().ok().map(u32::from_be_bytes).map(u64::from),
        value => value.try_into().ok().map(u64::from_be_bytes),
    }
}

/// GIC number of the interrupt at `position` of the node's `interrupts`, three cells each.
fn interrupt(node: FdtNode<'_>, position: usize) -> Option<u32> {
    let property = node.property("interrupts")?;
    let mut entries = property.as_prop_encoded_array([1, 1, 1]).ok()?;
    let [kind, number, _]: [Cells<'_>; 3] = entries.nth(position)?;
    let cell = |cells: Cells<'_>| cells.as_ref().first().map(|cell| cell.get());
    match cell(kind)? {
        0 => cell(number)?.checked_add(SHARED_BASE),
        1 => cell(number)?.checked_add(PRIVATE_BASE),
        _ => None,
    }
}

fn interrupt_controller(root: FdtNode<'_>) -> Result<InterruptController, DeviceTreeError> {
    let node = root
        .children()
        .find(|node| node.property("interrupt-controller").is_some())
        .ok_or(DeviceTreeError::Missing("an interrupt controller"))?;
    let mut registers = reg(node);
    let mut next =
        || registers.next().map(|range| range.start).ok_or(DeviceTreeError::Missing("the GIC's registers"));
    let (distributor, second) = (next()?, next()?);
    if node.is_compatible("arm,gic-v3") {
        Ok(InterruptController::V3 { distributor, redistributor: second })
    } else if node.is_compatible("arm,cortex-a15-gic") {
        Ok(InterruptController::V2 { distributor, cpu_interface: second })
    } else {
        Err(DeviceTreeError::Missing("a GICv2 or GICv3"))
    }
}

#[cfg(test)]
#[path = "device_tree_tests.rs"]
mod tests;
