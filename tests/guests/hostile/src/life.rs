//! The rounds of a life, and how they end.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt::Write;

use by_hand::grants::Grants;
use kernel::arch::timer::now_ns;
use kernel::bring_up::Foundation;
use kernel::logger;
use kernel::mm::address::Gfn;
use kernel::xen::event;
use kernel::xen::sched::ShutdownReason;
use kernel::xen::store::Store;

use crate::anywhere::Nowhere;
use crate::attacks::Attack;
use crate::device::{Device, Kind};
use crate::honest::Honesty;
use crate::options::Options;
use crate::random::Random;
use crate::second::{Second, Task};

/// Most devices that are looked for: as many as registers fit a page.
const DEVICES_MAX: usize = 8;
/// Every so many rounds it is honest with one of its devices.
const HONEST_EVERY: u64 = 24;
/// From one line on the console to the next.
const LINE_NS: u64 = 500_000_000;
/// A life of which nobody says how long it is ends within this, in rounds.
const NO_ROUND: u64 = u32::MAX as u64;

/// What all attacks have in hand.
pub struct Guest {
    pub devices: Vec<Device>,
    pub nowhere: Nowhere,
    pub store: Store,
    pub second: Second,
    /// Accesses to registers that faulted.
    pub faults: u64,
    /// What xenstore refused.
    pub refusals: u64,
}

impl Guest {
    fn new(foundation: Foundation, options: &Options) -> Result<Self, Box<dyn Error>> {
        let mut grants = Grants::new(Gfn::containing(foundation.unpopulated.start))?;
        let mut devices = Vec::new();
        while devices.len() < DEVICES_MAX
            && let Some(device) = Device::find(devices.len(), &foundation, &mut grants, options.backend)?
        {
            devices.push(device);
        }
        if devices.is_empty() {
            return Err("there is no device".into());
        }
        let second = Second::start(&foundation, &devices)?;
        let nowhere = Nowhere::new(&foundation);
        let (ring, port) = foundation.store;
        let store = Store::new(ring, move || event::send(port));
        Ok(Self { devices, nowhere, store, second, faults: 0, refusals: 0 })
    }

    /// Any device.
    pub fn any(&mut self, random: &mut Random) -> (&mut Device, &Nowhere) {
        let index = random.below(self.devices.len());
        (&mut self.devices[index], &self.nowhere)
    }

    /// A device of a kind; none without one.
    pub fn of_kind(&mut self, kind: Kind, random: &mut Random) -> Option<(&mut Device, &Nowhere)> {
        let count = self.devices.iter().filter(|device| device.kind == kind).count();
        let which = random.below(count);
        let device = self.devices.iter_mut().filter(|device| device.kind == kind).nth(which)?;
        Some((device, &self.nowhere))
    }
}

/// Lives. Returns how it wants to end.
pub fn live(foundation: Foundation) -> Result<ShutdownReason, Box<dyn Error>> {
    let options = Options::parse(foundation.machine.command_line)?;
    let mut guest = Guest::new(foundation, &options)?;
    let mut record = Record::new(&options, &guest);
    if options.attacks.is_empty() {
        guest.second.order(Task::Spin);
        loop {
            core::hint::spin_loop();
        }
    }
    let mut random = Random::new(options.seed, NO_ROUND);
    let end_ns = end_ns(&options, &mut random);
    let mut honesty = Honesty::new(options.seed);
    for round in 1..NO_ROUND {
        let mut random = Random::new(options.seed, round);
        let attack = random.of(&options.attacks);
        let task = Task::at_random(&mut random, attack.name);
        guest.second.order(task);
        (attack.round)(&mut guest, &mut random);
        record.count(attack);
        if round % HONEST_EVERY == 0 {
            guest.second.rest();
            let index = random.below(guest.devices.len());
            record.honest(honesty.check(index, &mut guest.devices[index]));
        }
        let now_ns = now_ns();
        record.tell(round, now_ns, &guest);
        if end_ns.is_some_and(|end_ns| now_ns > end_ns) {
            break;
        }
    }
    let reason = random.of(&[ShutdownReason::PowerOff, ShutdownReason::Crash]);
    log::info!("hostile: ends by {reason:?}");
    Ok(reason)
}

/// When this life is to end by itself.
fn end_ns(options: &Options, random: &mut Random) -> Option<u64> {
    let life_ns = options.life_ns.filter(|_| !options.stays)?;
    Some(now_ns() + life_ns / 4 + random.any() % (life_ns / 4 * 3).max(1))
}

/// What was done so far, for the console.
struct Record {
    attacks: Vec<&'static Attack>,
    counts: Vec<u64>,
    right: u64,
    next_line_ns: u64,
}

impl Record {
    fn new(options: &Options, guest: &Guest) -> Self {
        let granted = guest.devices.iter().filter(|device| device.is_granted()).count();
        log::info!(
            "hostile: begins: seed {}, {} devices, {granted} of them granted, {} attacks",
            options.seed,
            guest.devices.len(),
            options.attacks.len()
        );
        let attacks = options.attacks.clone();
        Self { counts: vec![0; attacks.len()], attacks, right: 0, next_line_ns: now_ns() + LINE_NS }
    }

    fn count(&mut self, attack: &Attack) {
        for (count, known) in self.counts.iter_mut().zip(&self.attacks) {
            *count += u64::from(known.name == attack.name);
        }
    }

    fn honest(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.right += 1,
            Err(error) => log::error!("hostile: honest: {error}"),
        }
    }

    fn tell(&mut self, round: u64, now_ns: u64, guest: &Guest) {
        if now_ns < self.next_line_ns {
            return;
        }
        self.next_line_ns = now_ns + LINE_NS;
        let mut line = String::new();
        for (count, attack) in self.counts.iter().zip(&self.attacks) {
            let _ = write!(line, " {} {count}", attack.name);
        }
        log::info!(
            "hostile: round {round}:{line}; second {}, faults {}, refusals {}, honest {}",
            guest.second.turns(),
            guest.faults,
            guest.refusals,
            self.right
        );
        logger::pump();
    }
}
