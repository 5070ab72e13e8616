//! Xenstore messages as bytes, and back. Pure: no ring, no state but that of a half-received message.
//!
//! Format: `struct xsd_sockmsg` in xen/include/public/io/xs_wire.h, payloads in docs/misc/xenstore.txt. Neighbours:
//! [`super::client`] sends and receives, [`super::replies`] reads the payloads.
//!
//! A message that the wire does not allow is refused here: a payload above [`PAYLOAD_MAX`] would make xenstored
//! close the connection.

use super::error::StoreError;
use alloc::vec::Vec;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest payload in bytes (XENSTORE_PAYLOAD_MAX).
pub const PAYLOAD_MAX: usize = 4096;
/// Longest path from the root in bytes (XENSTORE_ABS_PATH_MAX).
pub const ABSOLUTE_PATH_MAX: usize = 3072;
/// Longest path from the domain's own directory in bytes (XENSTORE_REL_PATH_MAX).
pub const RELATIVE_PATH_MAX: usize = 2048;
/// Longest token of a watch in bytes: an event with it and any path fits a message.
pub const TOKEN_MAX: usize = PAYLOAD_MAX - ABSOLUTE_PATH_MAX - 2;
/// Bytes of a message before its payload.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// What a message is (`enum xsd_sockmsg_type`), as far as this client uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// Names of a node's children.
    Directory = 1,
    /// Value of a node.
    Read = 2,
    /// Ask for events.
    Watch = 4,
    /// Ask for no more events.
    Unwatch = 5,
    /// Begin a transaction.
    TransactionStart = 6,
    /// Commit or abort a transaction.
    TransactionEnd = 7,
    /// Set a node's value, making it and its parents.
    Write = 11,
    /// Delete a node and everything below.
    Remove = 13,
    /// From the server, unasked: a watched node changed.
    WatchEvent = 15,
    /// From the server: the request failed.
    Error = 16,
    /// Forget all watches and transactions.
    ResetWatches = 21,
    /// A part of what Directory gives.
    DirectoryPart = 22,
}

impl Operation {
    const ALL: [Self; 12] = [
        Self::Directory,
        Self::Read,
        Self::Watch,
        Self::Unwatch,
        Self::TransactionStart,
        Self::TransactionEnd,
        Self::Write,
        Self::Remove,
        Self::WatchEvent,
        Self::Error,
        Self::ResetWatches,
        Self::DirectoryPart,
    ];

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&operation| operation as u32 == number)
    }
}

/// Tells requests in flight apart; the reply carries it back. 0 is not used: watch events have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u32);

/// A transaction as the server numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub u32);

impl TransactionId {
    /// Outside any transaction (XBT_NULL).
    pub const NONE: Self = Self(0);
}

/// `struct xsd_sockmsg`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    operation: U32,
    request: U32,
    transaction: U32,
    payload_bytes: U32,
}

const _: () = assert!(HEADER_BYTES == 16);

/// A request that the wire allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    operation: Operation,
    transaction: TransactionId,
    payload: Vec<u8>,
}

impl Message {
    /// READ, DIRECTORY or RM, and whatever else has just a path and may be part of a transaction.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] or [`StoreError::TooLong`] for a path that cannot be one.
    pub fn about_path(
        operation: Operation,
        transaction: TransactionId,
        path: &str,
    ) -> Result<Self, StoreError> {
        Self::new(operation, transaction, &[checked_path(path)?, b"\0"])
    }

    /// WRITE. The value is not terminated.
    ///
    /// # Errors
    /// As [`Self::about_path`]; [`StoreError::TooLong`] too when path and value do not fit one message.
    pub fn write(transaction: TransactionId, path: &str, value: &[u8]) -> Result<Self, StoreError> {
        Self::new(Operation::Write, transaction, &[checked_path(path)?, b"\0", value])
    }

    /// DIRECTORY_PART, from `offset` bytes on in the list of names.
    ///
    /// # Errors
    /// As [`Self::about_path`].
    pub fn directory_part(transaction: TransactionId, path: &str, offset: usize) -> Result<Self, StoreError> {
        let offset = alloc::format!("{offset}");
        Self::new(
            Operation::DirectoryPart,
            transaction,
            &[checked_path(path)?, b"\0", offset.as_bytes(), b"\0"],
        )
    }

    /// WATCH or UNWATCH; never part of a transaction.
    ///
    /// # Errors
    /// As [`Self::about_path`], for the token too.
    pub fn watch(operation: Operation, path: &str, token: &str) -> Result<Self, StoreError> {
        if token.len() > TOKEN_MAX {
            return Err(StoreError::TooLong);
        }
        if token.contains('\0') {
            return Err(StoreError::Invalid);
        }
        Self::new(operation, TransactionId::NONE, &[checked_path(path)?, b"\0", token.as_bytes(), b"\0"])
    }

    /// RESET_WATCHES.
    #[must_use]
    pub fn reset_watches() -> Self {
        Self::word(Operation::ResetWatches, TransactionId::NONE, b"\0")
    }

    /// TRANSACTION_START.
    #[must_use]
    pub fn transaction_start() -> Self {
        Self::word(Operation::TransactionStart, TransactionId::NONE, b"\0")
    }

    /// TRANSACTION_END that commits.
    #[must_use]
    pub fn commit(transaction: TransactionId) -> Self {
        Self::word(Operation::TransactionEnd, transaction, b"T\0")
    }

    /// TRANSACTION_END that aborts.
    #[must_use]
    pub fn abort(transaction: TransactionId) -> Self {
        Self::word(Operation::TransactionEnd, transaction, b"F\0")
    }

    /// What is asked.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self, request: RequestId) -> Vec<u8> {
        let header = Header {
            operation: U32::new(self.operation as u32),
            request: U32::new(request.0),
            transaction: U32::new(self.transaction.0),
            payload_bytes: U32::new(u32::try_from(self.payload.len()).unwrap_or(0)),
        };
        [header.as_bytes(), &self.payload].concat()
    }

    fn new(operation: Operation, transaction: TransactionId, parts: &[&[u8]]) -> Result<Self, StoreError> {
        let payload = parts.concat();
        if payload.len() > PAYLOAD_MAX {
            return Err(StoreError::TooLong);
        }
        Ok(Self { operation, transaction, payload })
    }

    fn word(operation: Operation, transaction: TransactionId, word: &[u8]) -> Self {
        Self { operation, transaction, payload: word.to_vec() }
    }
}

/// A path that xenstored takes: its characters and lengths are in xenstore.txt, "Path and values".
fn checked_path(path: &str) -> Result<&[u8], StoreError> {
    let most = if path.starts_with('/') { ABSOLUTE_PATH_MAX } else { RELATIVE_PATH_MAX };
    if path.len() > most {
        return Err(StoreError::TooLong);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    if path.is_empty() || !path.bytes().all(allowed) {
        return Err(StoreError::Invalid);
    }
    Ok(path.as_bytes())
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// What it is; `None` when it is nothing that this client could have caused.
    pub operation: Option<Operation>,
    /// Whose reply it is.
    pub request: RequestId,
    /// Its bytes, [`PAYLOAD_MAX`] at most.
    pub payload: Vec<u8>,
}

/// "OK", or the name of an error.
const ANSWER_BYTES_MAX: usize = 16;

/// Makes messages of bytes that come in pieces of any length.
#[derive(Default)]
pub struct Assembler {
    /// The message so far: never more than [`HEADER_BYTES`] and [`PAYLOAD_MAX`].
    bytes: Vec<u8>,
    /// Everything before the reply to this request is of a conversation that nobody remembers.
    hunted: Option<RequestId>,
}

impl Assembler {
    /// One that does not know where the next message begins: the first one it finds is the reply to `request`, by
    /// [`Message::reset_watches`], a number that nobody used before.
    pub fn hunting(request: RequestId) -> Self {
        Self { bytes: Vec::new(), hunted: Some(request) }
    }

    /// Whether that reply has not come.
    pub fn is_hunting(&self) -> bool {
        self.hunted.is_some()
    }

    /// Drops bytes up to the header of the reply that is hunted for.
    fn hunt(&mut self, input: &mut &[u8]) {
        while let Some(request) = self.hunted {
            self.fill(HEADER_BYTES, input);
            let Ok((header, _)) = Header::read_from_prefix(&self.bytes) else { return };
            let operation = Operation::from_number(header.operation.get());
            let is_reply = matches!(operation, Some(Operation::ResetWatches | Operation::Error))
                && header.request.get() == request.0
                && header.transaction.get() == TransactionId::NONE.0
                && header.payload_bytes.get() as usize <= ANSWER_BYTES_MAX;
            if is_reply {
                self.hunted = None;
            } else {
                self.bytes.remove(0);
            }
        }
    }

    /// Takes bytes from the front of `input`, up to the end of a message, and returns that message.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] for a length that cannot be: where the next message begins is not known any more.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, StoreError> {
        self.hunt(input);
        if self.is_hunting() {
            return Ok(None);
        }
        self.fill(HEADER_BYTES, input);
        let Ok((header, _)) = Header::read_from_prefix(&self.bytes) else {
            return Ok(None);
        };
        let payload_bytes = header.payload_bytes.get() as usize;
        if payload_bytes > PAYLOAD_MAX {
            return Err(StoreError::Protocol);
        }
        self.fill(HEADER_BYTES + payload_bytes, input);
        let Some(payload) = self.bytes.get(HEADER_BYTES..HEADER_BYTES + payload_bytes) else {
            return Ok(None);
        };
        let message = Incoming {
            operation: Operation::from_number(header.operation.get()),
            request: RequestId(header.request.get()),
            payload: payload.to_vec(),
        };
        self.bytes.clear();
        Ok(Some(message))
    }

    /// Moves bytes over until there are `length`, or no more.
    fn fill(&mut self, length: usize, input: &mut &[u8]) {
        let missing = length.saturating_sub(self.bytes.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.bytes.extend_from_slice(taken);
        *input = rest;
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
