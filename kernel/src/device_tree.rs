//! The few facts that the kernel reads from the device tree that `xl` made for this domain.

use core::ops::Range;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Cells, Node, Property};
use smallvec::SmallVec;

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
    /// Interrupt number (GIC INTID) of event channels.
    pub event_interrupt: u32,
    /// The file given by `ramdisk=`.
    pub initrd: Option<Range<u64>>,
    /// The command line given by `extra=`.
    pub command_line: &'a str,
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
        Ok(Self {
            memory,
            extended_regions: reg(hypervisor).skip(1).collect(),
            interrupt_controller: interrupt_controller(root)?,
            event_interrupt: interrupt(hypervisor, 0)
                .ok_or(DeviceTreeError::Missing("the event interrupt"))?,
            initrd: initrd.filter(|range| !range.is_empty()),
            command_line,
        })
    }
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
