//! Memory that two CPUs share, as weakly ordered as Arm's: the "views" of the C11 model without SeqCst accesses.
//!
//! Every word remembers all values that were stored in it. A CPU's view says from which of them on it must read, word by word;
//! it may read any of those, however late, until something brings its view forward:
//!
//! | | brings the view forward to |
//! |---|---|
//! | a load | the value read |
//! | an acquire fence | what the writers of all values read had to show at their last release fence |
//! | a full fence | likewise, and all that was seen before any earlier full fence, by anybody |
//! | the hypervisor between them | all that the other one sees |
//!
//! So stores become visible late and out of order, and loads are satisfied early, unless fences say otherwise. Not in the
//! model: a store before a load that stands before it in the program. Each word has one writer at a time.

use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;

/// Words that there are.
pub const WORDS: usize = 12;

/// Of each word, the oldest value that may still be read.
pub type View = [u8; WORDS];

fn join(view: &mut View, other: &View) {
    view.iter_mut().zip(other).for_each(|(mine, other)| *mine = (*mine).max(*other));
}

#[derive(Clone)]
struct Stored {
    value: u64,
    /// What whoever reads it and then has an acquire fence sees.
    shown: View,
}

/// What a CPU sees.
#[derive(Clone, Default)]
pub struct Cpu {
    pub view: View,
    /// What it will see after the next acquire fence.
    heard: View,
    /// What it saw at its last release fence.
    told: View,
}

impl Cpu {
    /// The hypervisor stood between this and whoever had that view.
    pub fn hear(&mut self, other: &View) {
        join(&mut self.view, other);
        self.told = self.view;
    }
}

#[derive(Clone)]
pub struct Memory {
    words: [Vec<Stored>; WORDS],
    /// What was seen before full fences.
    fenced: View,
}

impl Memory {
    pub fn new(values: [u64; WORDS]) -> Self {
        let words = values.map(|value| vec![Stored { value, shown: View::default() }]);
        Self { words, fenced: View::default() }
    }

    /// How many values a load by `cpu` may have.
    pub fn readable(&self, cpu: &Cpu, word: usize) -> usize {
        self.words[word].len() - usize::from(cpu.view[word])
    }

    /// Loads one of them; the newest for 0.
    pub fn load(&self, cpu: &mut Cpu, word: usize, age: usize) -> u64 {
        let place = self.words[word].len() - 1 - age;
        let stored = &self.words[word][place];
        cpu.view[word] = u8::try_from(place).unwrap();
        join(&mut cpu.heard, &stored.shown);
        stored.value
    }

    /// The value stored last.
    pub fn newest(&self, word: usize) -> u64 {
        self.words[word][self.words[word].len() - 1].value
    }

    pub fn store(&mut self, cpu: &mut Cpu, word: usize, value: u64) {
        cpu.view[word] = u8::try_from(self.words[word].len()).unwrap();
        let mut shown = cpu.told;
        shown[word] = cpu.view[word];
        self.words[word].push(Stored { value, shown });
    }

    pub fn fence(&mut self, cpu: &mut Cpu, ordering: Ordering) {
        if matches!(ordering, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst) {
            join(&mut cpu.view, &cpu.heard);
        }
        if ordering == Ordering::SeqCst {
            join(&mut cpu.view, &self.fenced);
            self.fenced = cpu.view;
        }
        if ordering != Ordering::Acquire {
            cpu.told = cpu.view;
        }
    }

    /// Hashes what may still matter to these CPUs: values that none of them can read any more do not.
    pub fn hash_for(&self, cpus: [&Cpu; 2], other_views: &[&View], hasher: &mut impl Hasher) {
        let mut gone = cpus[0].view;
        gone.iter_mut().zip(cpus[1].view).for_each(|(gone, other)| *gone = (*gone).min(other));
        let rest =
            |view: &View| -> View { std::array::from_fn(|word| view[word].saturating_sub(gone[word])) };
        for (stored, gone) in self.words.iter().zip(gone) {
            let readable = &stored[usize::from(gone)..];
            readable.len().hash(hasher);
            readable.iter().for_each(|stored| (stored.value, rest(&stored.shown)).hash(hasher));
        }
        for cpu in cpus {
            let mut heard = cpu.heard;
            join(&mut heard, &cpu.view);
            (rest(&cpu.view), rest(&heard), rest(&cpu.told)).hash(hasher);
        }
        rest(&self.fenced).hash(hasher);
        other_views.iter().for_each(|view| rest(view).hash(hasher));
    }
}
