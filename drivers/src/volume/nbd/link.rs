//! A connection to an export, which is made again whenever it breaks.
//!
//! ```text
//!   waiting ── time is over ──> shaking hands ── done ──> up
//!      └─────── broken, refused, or too slow ──┴───────────┘
//! ```
//! What passes while it is up is for [`super::drive`] to know.

use super::export::Export;
use super::handshake::{self, Handshake};
use super::{NbdError, SILENCE_NS};
use crate::connection::{Connection, ConnectionState};
use alloc::boxed::Box;
use alloc::string::String;
use zerocopy::IntoBytes;

/// The pause before another try, at first, ...
const PAUSE_MIN_NS: u64 = 100_000_000;
/// ... and after many that failed: each doubles it.
const PAUSE_MAX_NS: u64 = 2_000_000_000;
/// In how much time there must be a connection, and a handshake on it: a lost first packet costs a second or three.
const ATTEMPT_LIMIT_NS: u64 = 5_000_000_000;

enum State {
    Waiting { until_ns: u64 },
    ShakingHands { handshake: Handshake, until_ns: u64 },
    Up,
}

/// A connection to an export.
pub struct Link {
    name: String,
    export_name: String,
    connection: Box<dyn Connection>,
    state: State,
    pause_ns: u64,
    /// What the last attempt ended with; it is logged once.
    last_error: Option<NbdError>,
}

impl Link {
    /// A link called `name` in the log, to the export `export_name` of the server behind `connection`. The first
    /// [`Self::tend`] begins to connect.
    #[must_use]
    pub fn new(name: String, export_name: String, connection: Box<dyn Connection>) -> Self {
        let state = State::Waiting { until_ns: 0 };
        Self { name, export_name, connection, state, pause_ns: PAUSE_MIN_NS, last_error: None }
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
        let State::ShakingHands { handshake, until_ns } = &mut self.state else { return None };
        let until_ns = *until_ns;
        match shake_hands(handshake, &mut *self.connection) {
            Ok(None) if now_ns < until_ns => None,
            Ok(None) => {
                let is_connected = self.connection.state() == ConnectionState::Open;
                let error = if is_connected { NbdError::Silent } else { NbdError::Unreachable };
                Some(Err(self.fail(now_ns, error)))
            }
            Ok(Some(export)) => {
                self.state = State::Up;
                self.last_error = None;
                Some(Ok(export))
            }
            Err(error) => Some(Err(self.fail(now_ns, error))),
        }
    }

    /// Ends the connection; another will be made.
    pub fn fail(&mut self, now_ns: u64, error: NbdError) -> NbdError {
        if self.last_error.replace(error) != Some(error) {
            log::warn!("{}: {error}", self.name);
        }
        self.say_goodbye();
        self.connection.close();
        self.state = State::Waiting { until_ns: now_ns.saturating_add(self.pause_ns) };
        self.pause_ns = self.pause_ns.saturating_mul(2).min(PAUSE_MAX_NS);
        error
    }

    /// The server does its work: the next pause will be short.
    pub fn works(&mut self) {
        self.pause_ns = PAUSE_MIN_NS;
    }

    /// Whether commands can pass.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    /// When [`Self::tend`] is to be called even if nothing comes.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ns } | State::ShakingHands { until_ns, .. } => Some(until_ns),
            State::Up => None,
        }
    }

    /// The connection, while the link is up.
    pub fn connection(&mut self) -> Option<&mut dyn Connection> {
        match self.state {
            State::Up => Some(&mut *self.connection),
            _ => None,
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
        assert!(!link.is_up());
    }
}
