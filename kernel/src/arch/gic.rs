//! The interrupt controller, version 2 or 3, polled: an interrupt itself only ends a sleep. But for an urgent one, the
//! watchdog's: it is taken at any instruction.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use arm_gic::gicv2::GicV2;
use arm_gic::gicv3::{GicCpuInterface, GicV3};
use arm_gic::{IntId, InterruptGroup, UniqueMmioPointer};

use crate::device_tree::InterruptController;

/// Lets every priority through.
const PRIORITY_MASK_ALL: u8 = 0xff;
/// Lets through what is urgent.
const PRIORITY_MASK_URGENT: u8 = 0x40;
/// The priority of all our interrupts but urgent ones: there is no order among them.
const PRIORITY: u8 = 0x80;
/// The priority of urgent ones.
const PRIORITY_URGENT: u8 = 0x20;

/// Offsets of two registers in the CPU interface of a GICv2 (GICv2 architecture, 4.1.3).
const GICC_IAR: usize = 0xc;
const GICC_EOIR: usize = 0x10;

/// Address of the CPU interface of a GICv2, for [`take_urgent`]; 0 for a GICv3.
static CPU_INTERFACE: AtomicUsize = AtomicUsize::new(0);

/// The group in which Xen puts a domain's interrupts: its GICv2 knows no other than 0 (`vgic-v2.c`), its GICv3 sets
/// group 1 in each list register (`gic-v3.c`).
const GROUP_V2: InterruptGroup = InterruptGroup::Group0;
const GROUP_V3: InterruptGroup = InterruptGroup::Group1;
/// From here on a number that is acknowledged says that there is no interrupt (GICv2 architecture, 3.2.5).
const SPECIAL_START: u32 = 1020;

/// An interrupt number as the GIC counts: 16..32 private to the CPU, 32.. shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(pub u32);

/// Which interrupts reach the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// All that are enabled.
    All,
    /// Urgent ones.
    Urgent,
}

/// The interrupt controller could not be brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interrupt controller refused: {0}")]
pub struct GicError(&'static str);

/// The interrupt controller of this domain.
pub enum Gic {
    /// Memory-mapped CPU interface.
    V2(GicV2<'static>),
    /// CPU interface in system registers.
    V3(GicV3<'static>),
}

impl Gic {
    /// Takes over the controller that the device tree describes.
    ///
    /// # Errors
    /// [`GicError`] when it does not look like one.
    ///
    /// # Safety
    /// The controller's registers must be mapped as device memory, and nothing else may use them.
    pub unsafe fn new(controller: InterruptController) -> Result<Self, GicError> {
        let null = GicError("its registers are at address 0");
        match controller {
            InterruptController::V2 { distributor, cpu_interface } => {
                if distributor == 0 || cpu_interface == 0 {
                    return Err(null);
                }
                let (gicd, gicc) = (
                    core::ptr::with_exposed_provenance_mut(distributor as usize),
                    core::ptr::with_exposed_provenance_mut(cpu_interface as usize),
                );
                // SAFETY: the caller's contract.
                let mut gic = unsafe { GicV2::new(gicd, gicc) };
                gic.setup();
                gic.set_priority_mask(PRIORITY_MASK_ALL);
                CPU_INTERFACE.store(cpu_interface as usize, Ordering::Relaxed);
                Ok(Self::V2(gic))
            }
            InterruptController::V3 { distributor, redistributor } => {
                let gicd =
                    NonNull::new(core::ptr::with_exposed_provenance_mut(distributor as usize)).ok_or(null)?;
                let gicr = NonNull::new(core::ptr::with_exposed_provenance_mut(redistributor as usize))
                    .ok_or(null)?;
                // SAFETY: the caller's contract.
                let gic = unsafe { GicV3::new(UniqueMmioPointer::new(gicd), gicr, 1) };
                let mut gic = gic.map_err(|_| GicError("no redistributor"))?;
                gic.setup(0);
                GicCpuInterface::set_priority_mask(PRIORITY_MASK_ALL);
                Ok(Self::V3(gic))
            }
        }
    }

    /// Lets `interrupt` become pending for us.
    ///
    /// # Errors
    /// [`GicError`] when there is no such interrupt.
    pub fn enable(&mut self, interrupt: Interrupt) -> Result<(), GicError> {
        self.enable_with(interrupt, PRIORITY)
    }

    /// The same for an interrupt that is let through always.
    ///
    /// # Errors
    /// As [`Self::enable`].
    pub fn enable_urgent(&mut self, interrupt: Interrupt) -> Result<(), GicError> {
        self.enable_with(interrupt, PRIORITY_URGENT)
    }

    /// Lets all enabled interrupts through to the CPU, or only urgent ones. What is kept back stays pending.
    pub fn admit(&mut self, which: Admitted) {
        let mask = match which {
            Admitted::All => PRIORITY_MASK_ALL,
            Admitted::Urgent => PRIORITY_MASK_URGENT,
        };
        match self {
            Self::V2(gic) => gic.set_priority_mask(mask),
            Self::V3(_) => GicCpuInterface::set_priority_mask(mask),
        }
    }

    fn enable_with(&mut self, interrupt: Interrupt, priority: u8) -> Result<(), GicError> {
        let id = IntId::try_from(interrupt.0).map_err(|_| GicError("no such interrupt"))?;
        match self {
            Self::V2(gic) => {
                gic.set_interrupt_priority(id, priority);
                gic.enable_interrupt(id, true).map_err(|_| GicError("interrupt not enabled"))
            }
            Self::V3(gic) => {
                let cpu = Some(0).filter(|_| id.is_private());
                gic.set_interrupt_priority(id, cpu, priority).map_err(|_| GicError("priority not set"))?;
                gic.enable_interrupt(id, cpu, true).map_err(|_| GicError("interrupt not enabled"))
            }
        }
    }

    /// Takes the next pending interrupt; [`Self::end`] must follow, or it never comes again.
    pub fn take(&mut self) -> Option<Interrupt> {
        let id = match self {
            Self::V2(gic) => gic.get_and_acknowledge_interrupt(GROUP_V2),
            Self::V3(_) => GicCpuInterface::get_and_acknowledge_interrupt(GROUP_V3),
        }?;
        Some(Interrupt(id.into())).filter(|interrupt| interrupt.0 < SPECIAL_START)
    }

    /// Lets `interrupt`, got by [`Self::take`], come again.
    pub fn end(&mut self, interrupt: Interrupt) {
        let Ok(id) = IntId::try_from(interrupt.0) else { return };
        match self {
            Self::V2(gic) => gic.end_interrupt(id, GROUP_V2),
            Self::V3(_) => GicCpuInterface::end_interrupt(id, GROUP_V3),
        }
    }
}

/// Takes a pending interrupt and lets it come again: for the handler of urgent ones, which has no [`Gic`] at hand.
pub fn take_urgent() -> Option<Interrupt> {
    let cpu_interface = CPU_INTERFACE.load(Ordering::Relaxed);
    let interrupt = if cpu_interface == 0 {
        let id = GicCpuInterface::get_and_acknowledge_interrupt(GROUP_V3)?;
        GicCpuInterface::end_interrupt(id, GROUP_V3);
        Interrupt(id.into())
    } else {
        let register = |offset| core::ptr::with_exposed_provenance_mut::<u32>(cpu_interface + offset);
        // SAFETY: the registers of the CPU interface are mapped for good (contract of `Gic::new`). Both accesses are whole in
        // themselves: whatever the loop does to the controller goes on as if nothing had been.
        unsafe {
            let taken = register(GICC_IAR).read_volatile();
            register(GICC_EOIR).write_volatile(taken);
            Interrupt(taken)
        }
    };
    Some(interrupt).filter(|interrupt| interrupt.0 < SPECIAL_START)
}
