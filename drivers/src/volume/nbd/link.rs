//! A connection to an export, which is made again whenever it breaks.
//!
//! ```text
//!   waiting ── time is over ──> shaking hands ── done ──> up
//!      └─────── broken, refused, or too slow ──┴───────────┘
//! ```
//! What passes while it is up is for [`super::drive`] to know.
//!
//! A server that takes connections and ends them again does not fill the log: between the line that the connection is lost
//! and the one that it is back, there is a reminder each minute. It is back when the server has answered a command, or
//! has kept the connection for a while.

use super::export::Export;
use super::handshake::{self, Handshake};
use super::{NbdError, SILENCE_NS};
use crate::connection::{Connection, ConnectionState};
use crate::drive::LinkStatus;
use alloc::boxed::Box;
use alloc::string::String;
use zerocopy::IntoBytes;

/// The pause before another try, at first, ...
const PAUSE_MIN_NS: u64 = 100_000_000;
/// ... and after many that failed: each doubles it.
const PAUSE_MAX_NS: u64 = 2_000_000_000;
/// In how much time there must be a connection, and a handshake on it: a lost first packet costs a second or three.
const ATTEMPT_LIMIT_NS: u64 = 5_000_000_000;

/// Who kept the connection for so long is back, even if there was no command to answer.
const STEADY_NS: u64 = 5_000_000_000;
/// A loss so soon after one that was told is told only if it lasts.
const SPACING_NS: u64 = 5_000_000_000;
/// How often it is told that a connection is still lost.
const REMINDER_NS: u64 = 60_000_000_000;

enum State {
    Waiting { until_ns: u64 },
    ShakingHands { handshake: Handshake, until_ns: u64 },
    Up { steady_ns: u64 },
}

/// What there is to tell of a connection that was lost, until it is back.
#[derive(Default)]
struct Trouble {
    /// Connections that ended, and attempts that failed.
    failures: u64,
    /// Commands that were sent again.
    replayed: u64,
    /// Writes that were answered and not made durable, when the connection was last lost.
    in_doubt: u64,
    /// The log has it.
    is_told: bool,
}

/// A connection to an export.
pub struct Link {
    name: String,
    export_name: String,
    connection: Box<dyn Connection>,
    state: State,
    pause_ns: u64,
    trouble: Trouble,
    /// When the log was last told of trouble.
    told_ns: Option<u64>,
    /// Times that it came up, and commands that were sent again.
    connections: u64,
    replayed: u64,
}

impl Link {
    /// A link called `name` in the log, to the export `export_name` of the server behind `connection`. The first
    /// [`Self::tend`] begins to connect.
    #[must_use]
    pub fn new(name: String, export_name: String, connection: Box<dyn Connection>) -> Self {
        let state = State::Waiting { until_ns: 0 };
        Self {
            name,
            export_name,
            connection,
            state,
            pause_ns: PAUSE_MIN_NS,
            trouble: Trouble::default(),
            told_ns: None,
            connections: 0,
            replayed: 0,
        }
    }

    /// Its name in the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Goes on with what it is at. Returns the export when the link has just come up, or why an attempt just failed; or
    /// why a link that was up no longer is.
    pub fn tend(&mut self, now_ns: u64) -> Option<Result<Export, NbdError>> {
        if let State::Waiting { until_ns } = self.state {
            if now_ns < until_ns {
                return None;
            }
            self.connection.open();
            let handshake = Handshake::new(&self.export_name);
            let until_ns = now_ns.saturating_add(ATTEMPT_LIMIT_NS);
            self.state = State::ShakingHands { handshake, until_ns };
        }
        let (handshake, until_ns) = match &mut self.state {
            State::ShakingHands { handshake, until_ns } => (handshake, *until_ns),
            State::Up { steady_ns } if now_ns >= *steady_ns => {
                self.tell_back();
                return None;
            }
            _ => return None,
        };
        match shake_hands(handshake, &mut *self.connection) {
            Ok(None) if now_ns < until_ns => None,
            Ok(None) => {
                let is_connected = self.connection.state() == ConnectionState::Open;
                let error = if is_connected { NbdError::Silent } else { NbdError::Unreachable };
                Some(Err(self.fail(now_ns, error)))
            }
            Ok(Some(export)) => {
                self.state = State::Up { steady_ns: now_ns.saturating_add(STEADY_NS) };
                self.connections += 1;
                Some(Ok(export))
            }
            Err(error) => Some(Err(self.fail(now_ns, error))),
        }
    }

    /// Ends the connection; another will be made.
    pub fn fail(&mut self, now_ns: u64, error: NbdError) -> NbdError {
        self.tell_failure(now_ns, error);
        self.say_goodbye();
        self.connection.close();
        self.state = State::Waiting { until_ns: now_ns.saturating_add(self.pause_ns) };
        self.pause_ns = self.pause_ns.saturating_mul(2).min(PAUSE_MAX_NS);
        error
    }

    /// The server does its work: the next pause will be short.
    pub fn works(&mut self) {
        self.pause_ns = PAUSE_MIN_NS;
        // A loss that was not told is told of when the connection stays.
        if self.trouble.is_told {
            self.tell_back();
        }
    }

    /// There is something to tell once the connection stays: writes that may be lost, even if the loss was not told.
    fn is_troubled(&self) -> bool {
        self.trouble.is_told || self.trouble.in_doubt > 0
    }

    /// The link has come up again: so many commands are sent again, and of so many writes that were answered it is not
    /// known whether the server still has them.
    pub fn resumed(&mut self, commands: u64, in_doubt: u64) {
        self.replayed += commands;
        self.trouble.replayed += commands;
        self.trouble.in_doubt = in_doubt;
    }

    /// How it is, and was.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        LinkStatus {
            is_up: matches!(self.state, State::Up { .. }),
            reconnects: self.connections.saturating_sub(1),
            replayed: self.replayed,
        }
    }

    /// When [`Self::tend`] is to be called even if nothing comes.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ns } | State::ShakingHands { until_ns, .. } => Some(until_ns),
            State::Up { steady_ns } => self.is_troubled().then_some(steady_ns),
        }
    }

    /// The connection, while the link is up.
    pub fn connection(&mut self) -> Option<&mut dyn Connection> {
        match self.state {
            State::Up { .. } => Some(&mut *self.connection),
            _ => None,
        }
    }

    fn tell_failure(&mut self, now_ns: u64, error: NbdError) {
        self.trouble.failures += 1;
        let quiet_ns = if self.trouble.is_told { REMINDER_NS } else { SPACING_NS };
        if self.told_ns.is_some_and(|told_ns| now_ns < told_ns.saturating_add(quiet_ns)) {
            return;
        }
        match self.trouble.failures {
            1 => log::warn!("{}: {error}", self.name),
            failures => log::warn!("{}: {error}; {failures} times so far", self.name),
        }
        (self.trouble.is_told, self.told_ns) = (true, Some(now_ns));
    }

    /// Ends the trouble, if there is any. What was not told counts for the next line.
    fn tell_back(&mut self) {
        if !self.is_troubled() {
            return;
        }
        let Trouble { replayed, in_doubt, .. } = core::mem::take(&mut self.trouble);
        match in_doubt {
            0 => log::info!("{}: connected again; {replayed} commands were sent again", self.name),
            _ => log::warn!(
                "{}: connected again; {replayed} commands were sent again; {in_doubt} writes were answered but not yet \
                 durable: they are lost if the server's machine was down",
                self.name,
            ),
        }
    }

    /// Tells a server that expects an option that there is none. The connection is about to end.
    fn say_goodbye(&mut self) {
        if let State::ShakingHands { handshake, .. } = &self.state
            && handshake.can_abort()
        {
            self.connection.send(handshake::abort().as_bytes());
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

fn shake_hands(
    handshake: &mut Handshake,
    connection: &mut dyn Connection,
) -> Result<Option<Export>, NbdError> {
    // What came before the end counts.
    if connection.state() == ConnectionState::Opening {
        return Ok(None);
    }
    let done = handshake.receive(|bytes| connection.receive(bytes))?;
    if done.is_some() && !handshake.to_send().is_empty() {
        // Commands would follow a part of the question.
        return Err(NbdError::Protocol("an answer before the question"));
    }
    if done.is_none() {
        let sent = connection.send(handshake.to_send());
        handshake.sent(sent);
        if connection.state() == ConnectionState::Closed {
            return Err(handshake.ended());
        }
    }
    Ok(done)
}

/// Both fit into the time that a command has.
const _: () = assert!(ATTEMPT_LIMIT_NS + PAUSE_MAX_NS < SILENCE_NS);

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A server that says all at once, and hears nothing.
    struct Hasty(Vec<u8>);

    impl Connection for Hasty {
        fn open(&mut self) {}
        fn close(&mut self) {}
        fn state(&self) -> ConnectionState {
            ConnectionState::Open
        }
        fn send(&mut self, _bytes: &[u8]) -> usize {
            0
        }
        fn receive(&mut self, bytes: &mut [u8]) -> usize {
            let count = bytes.len().min(self.0.len());
            bytes.iter_mut().zip(self.0.drain(..count)).for_each(|(to, from)| *to = from);
            count
        }
    }

    /// What was left to say of the question would have been lost, and commands taken for it. Found by the fuzzer.
    #[test]
    fn an_answer_before_the_question_is_none() {
        let size = 0x10_0000_u64.to_be_bytes();
        let said = [&b"NBDMAGICIHAVEOPT\0\x02"[..], &size, &[0, 1]].concat();
        let mut link = Link::new("nbd".into(), "disk".into(), Box::new(Hasty(said)));
        let failed = link.tend(0).map(|came| came.map(drop));
        assert_eq!(failed, Some(Err(NbdError::Protocol("an answer before the question"))));
        assert!(!link.status().is_up);
    }
}
