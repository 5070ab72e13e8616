//! All attacks, by name.

use crate::life::Guest;
use crate::random::Random;
use crate::{ballooning, chains, floods, frames, probes, rewrites, store};

/// An attack: one round of it takes some milliseconds.
pub struct Attack {
    pub name: &'static str,
    pub round: fn(&mut Guest, &mut Random),
}

/// All of them.
pub const ALL: [Attack; 16] = [
    Attack { name: "chains", round: chains::random_chains },
    Attack { name: "requests", round: chains::lying_requests },
    Attack { name: "indices", round: chains::forged_indices },
    Attack { name: "rings", round: chains::rings_anywhere },
    Attack { name: "rewrites", round: rewrites::in_flight },
    Attack { name: "registers", round: probes::registers },
    Attack { name: "resets", round: floods::resets },
    Attack { name: "restarts", round: floods::restarts },
    Attack { name: "kicks", round: floods::kicks },
    Attack { name: "greed", round: floods::greed },
    Attack { name: "headers", round: frames::lying_headers },
    Attack { name: "addresses", round: frames::many_addresses },
    Attack { name: "broadcasts", round: frames::broadcasts },
    Attack { name: "commands", round: frames::commands },
    Attack { name: "balloon", round: ballooning::rings_away },
    Attack { name: "store", round: store::nodes },
];
