//! The second vCPU, which does as it is told meanwhile.
//!
//! It shares nothing with the kernel that the first one runs: no heap, no log. It has registers of our devices, and pages of theirs to
//! scribble on.

use alloc::boxed::Box;
use core::error::Error;
use core::ptr::with_exposed_provenance_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use by_hand::pages::Pages;
use by_hand::registers::{self as register, Registers};
use kernel::bring_up::Foundation;
use kernel::limits::PAGE_BYTES;
use kernel::xen::sched::yield_processor;

use crate::device::Device;
use crate::random::Random;

core::arch::global_asm!(include_str!("second.S"), options(raw));

/// Pages of its stack, and of that for faults.
const STACK_PAGES: usize = 8;
const FAULT_STACK_PAGES: usize = 2;
/// What it does of a task before it looks for another one.
const TURN: usize = 32;
const QUEUES_MAX: usize = 24;

/// What it is to do.
static TASK: AtomicU32 = AtomicU32::new(Task::Rest as u32);
/// What it does.
static DOES: AtomicU32 = AtomicU32::new(Task::Rest as u32);
/// How often it has done something.
static TURNS: AtomicU64 = AtomicU64::new(0);
static DEVICES: AtomicUsize = AtomicUsize::new(0);
/// Addresses of pages that it may scribble on.
static PAGES: [AtomicUsize; QUEUES_MAX] = [const { AtomicUsize::new(0) }; QUEUES_MAX];

unsafe extern "C" {
    fn start_second(stack: usize, fault_stack: usize) -> i64;
}

/// What the second vCPU does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Task {
    /// Nothing: it touches nothing of ours.
    Rest,
    /// Nothing, without giving its processor away.
    Spin,
    /// Kicks all queues, and some that are not there.
    Kick,
    /// Reads registers.
    Read,
    /// Writes the status.
    Status,
    /// Writes into descriptors and rings.
    Scribble,
}

impl Task {
    const ALL: [Self; 6] = [Self::Rest, Self::Spin, Self::Kick, Self::Read, Self::Status, Self::Scribble];

    /// What goes with an attack: the like of it, if there is, and else anything.
    pub fn at_random(random: &mut Random, attack: &str) -> Self {
        let any = random.of(&Self::ALL);
        match attack {
            "kicks" => Self::Kick,
            "registers" => Self::Read,
            "resets" => Self::Status,
            "rewrites" => Self::Scribble,
            // Pages that are not there must not be written to, and who floods must not be reset.
            "balloon" => Self::Rest,
            "greed" | "addresses" | "headers" | "broadcasts" => Self::Spin,
            _ => any,
        }
    }

    fn of(number: u32) -> Self {
        Self::ALL.into_iter().find(|task| *task as u32 == number).unwrap_or(Self::Rest)
    }
}

/// Gives the orders.
pub struct Second(());

impl Second {
    /// Starts it, with these devices.
    pub fn start(foundation: &Foundation, devices: &[Device]) -> Result<Self, Box<dyn Error>> {
        let queues = devices.iter().flat_map(|device| &device.queues);
        let pages = queues.flat_map(|queue| [0, 1].map(|page| queue.ring.pages.address(page * PAGE_BYTES)));
        for (place, address) in PAGES.iter().zip(pages) {
            place.store(address as usize, Ordering::Relaxed);
        }
        DEVICES.store(devices.len(), Ordering::Relaxed);
        let stack = Pages::take(foundation, STACK_PAGES + FAULT_STACK_PAGES)?;
        let start = stack.address(0) as usize;
        let (stack_end, end) = (start + STACK_PAGES * PAGE_BYTES, start + stack.count() * PAGE_BYTES);
        core::mem::forget(stack);
        // SAFETY: the stacks are pages that nobody else has, for good; `second_main` does what it may.
        match unsafe { start_second(stack_end, end) } {
            0 => Ok(Self(())),
            error => Err(alloc::format!("the second vCPU does not start: {error}").into()),
        }
    }

    /// From now on it does this.
    pub fn order(&self, task: Task) {
        TASK.store(task as u32, Ordering::Release);
        if task == Task::Rest {
            while DOES.load(Ordering::Acquire) != Task::Rest as u32 {
                yield_processor();
            }
        }
    }

    /// Comes back when it touches nothing any more.
    pub fn rest(&self) {
        self.order(Task::Rest);
    }

    /// How often it has done something.
    pub fn turns(&self) -> u64 {
        TURNS.load(Ordering::Relaxed)
    }
}

/// Called by `second.S`, on the second vCPU.
#[unsafe(no_mangle)]
extern "C" fn second_main() -> ! {
    for turn in 0.. {
        let task = Task::of(TASK.load(Ordering::Acquire));
        DOES.store(task as u32, Ordering::Release);
        let mut random = Random::new(u64::MAX, turn);
        match task {
            Task::Rest => yield_processor(),
            Task::Spin => (0..TURN * TURN).for_each(|_| core::hint::spin_loop()),
            Task::Kick | Task::Read | Task::Status => (0..TURN).for_each(|_| touch(task, &mut random)),
            Task::Scribble => (0..TURN).for_each(|_| scribble(&mut random)),
        }
        if task != Task::Rest {
            TURNS.store(turn, Ordering::Relaxed);
        }
    }
    loop {
        yield_processor();
    }
}

/// One access to a register.
fn touch(task: Task, random: &mut Random) {
    let registers = Registers::nth(random.below(DEVICES.load(Ordering::Relaxed)));
    match task {
        Task::Kick => registers.write(register::QUEUE_NOTIFY, random.below(4) as u32),
        Task::Status => registers.write(register::STATUS, random.of(&[0, 1, 3, 11, 15, 15, 15, 143])),
        _ => drop(registers.read(random.below(register::DEVICE_BYTES / 4) * 4)),
    }
}

/// One word of a descriptor or of the available ring.
fn scribble(random: &mut Random) {
    let page = PAGES[random.below(PAGES.len())].load(Ordering::Relaxed);
    if page == 0 {
        return;
    }
    // The first ones are in use most.
    let room = if random.once_in(2) { PAGE_BYTES / 2 } else { 64 };
    let place = random.below(room);
    let value = if random.once_in(2) { random.any() as u16 } else { random.below(256) as u16 };
    let word: *mut u16 = with_exposed_provenance_mut(page + place / 2 * 2);
    // SAFETY: a page of a ring, RAM of ours that nobody borrows; not while the first vCPU gives it away: then we rest.
    unsafe { word.write_volatile(value) };
}
