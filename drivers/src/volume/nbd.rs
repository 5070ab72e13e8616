//! A disk on another machine: an export of an NBD server is a [`crate::drive::Drive`], which [`super::disk`] serves as it
//! does a physical disk.
//!
//! | file | job |
//! |---|---|
//! | [`wire`] | numbers and layouts of the protocol |
//! | [`handshake`] | from the greeting to the export, on bytes alone |
//! | [`export`] | what an export is, and what drive that makes |
//! | [`link`] | a connection that is made again and again |
//! | [`drive`] | commands and replies over it |
//! | [`disks`] | the exports that are open, for the registry and the loop |
//!
//! Fixed newstyle with simple replies, no TLS: the way to the server must be trusted. All numbers are from the NBD
//! protocol document (`doc/proto.md` of the NBD project).
//!
//! # When the connection breaks
//! Commands that were not answered stay in their slots and are sent again once there is a connection; all commands may be
//! carried out twice. Who waits longer than [`TIME_LIMIT_NS`] gets an error. What nobody waits for any more is not sent
//! again. A server that says nothing for [`SILENCE_NS`], while it has commands, counts as a broken connection.
//!
//! An export that comes back smaller, read-only or with fewer abilities is another disk: ours is out of order then, until
//! all its users have closed it.
//!
//! # What this cannot know
//! - **Whether a server that is back still has what it had answered but not made durable.** One that was restarted has:
//!   it was in the page cache of its machine, and the next flush covers it. One whose machine lost power has not. From
//!   here both look alike. To fail the next flush would end every journal at every restart of a server, and to make every
//!   write durable by itself (FUA) costs a disk's rotation each; so we go on, as Linux's and QEMU's clients do, and say in
//!   the log how many writes are concerned. Who wants no doubt runs the server write-through (`qemu-nbd
//!   --cache=writethrough`, `sync = true` of nbd-server): what was answered is durable then.
//! - **Whether a server still works for the connection that broke.** A write that it got there may be carried out after
//!   what we send on the next one. The window is as long as a command takes; a network that was cut between two living
//!   machines is what opens it. Linux's client has it, too.
//!
//! An export that shows each connection contents of its own (`copyonwrite` of nbd-server, temporary overlays) loses what was
//! written with the connection. It is not for this.

pub mod disks;
pub mod drive;
pub mod export;
pub mod handshake;
pub mod link;
pub mod wire;

/// In how much time a command must be answered, whatever the connection does meanwhile.
pub const TIME_LIMIT_NS: u64 = 30_000_000_000;
/// A server that has commands and says nothing for so long is gone: half of [`TIME_LIMIT_NS`], so that there is time for
/// another try.
pub const SILENCE_NS: u64 = 15_000_000_000;

/// Why there is no use in a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NbdError {
    /// No connection.
    #[error("the server cannot be reached, or refuses the connection")]
    Unreachable,
    /// It did not say what it should.
    #[error("the server does not answer")]
    Silent,
    /// It went away.
    #[error("the server ended the connection")]
    Ended,
    /// It went away when it heard the name, which is how old servers refuse.
    #[error("the server ended the connection: it may have no such export")]
    EndedAtName,
    /// It is no NBD server, or a bad one.
    #[error("the server breaks the protocol: {0}")]
    Protocol(&'static str),
    /// NBD_REP_ERR_UNKNOWN.
    #[error("the server has no such export")]
    NoExport,
    /// NBD_REP_ERR_TLS_REQD.
    #[error("the server wants TLS, which is not supported")]
    TlsRequired,
    /// NBD_REP_ERR_POLICY.
    #[error("the server does not allow us the export")]
    Policy,
    /// NBD_REP_ERR_SHUTDOWN, NBD_ESHUTDOWN.
    #[error("the server is going down")]
    ShuttingDown,
    /// Another NBD_REP_ERR_*, without the bit that all have.
    #[error("the server refuses the export with error {0}")]
    Refused(u32),
    /// Less than a block.
    #[error("the export is smaller than a block")]
    Empty,
    /// It is not what it was.
    #[error("the export is not what it was: smaller, read-only, or with fewer abilities")]
    Changed,
}

impl NbdError {
    /// Whether another try may end otherwise.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::Silent | Self::Ended | Self::EndedAtName | Self::ShuttingDown
        )
    }
}
