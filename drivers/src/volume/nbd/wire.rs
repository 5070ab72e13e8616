//! What passes over a connection to an NBD server: numbers and layouts, all big-endian (NBD protocol, "Values").

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

/// The port that IANA gave to NBD.
pub const DEFAULT_PORT: u16 = 10809;
/// Most bytes of an export's name. The protocol allows 4096; no server names exports like that.
pub const EXPORT_NAME_MAX: usize = 255;

/// `NBDMAGIC`, the first thing a server says.
pub const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, of a server that negotiates, and before each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before each answer to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before each command.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before each simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

bitflags::bitflags! {
    /// Flags with which a server begins the handshake, and those with which a client answers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HandshakeFlags: u32 {
        /// NBD_FLAG_FIXED_NEWSTYLE: it answers every option.
        const FIXED_NEWSTYLE = 1 << 0;
        /// NBD_FLAG_NO_ZEROES: no padding after the answer to [`option::EXPORT_NAME`].
        const NO_ZEROES = 1 << 1;
    }

    /// NBD_FLAG_*: what an export can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExportFlags: u16 {
        /// The other flags hold.
        const HAS_FLAGS = 1 << 0;
        /// It refuses writes.
        const READ_ONLY = 1 << 1;
        /// It knows [`command::FLUSH`].
        const SEND_FLUSH = 1 << 2;
        /// It knows [`command::FLAG_FUA`].
        const SEND_FUA = 1 << 3;
        /// It knows [`command::TRIM`].
        const SEND_TRIM = 1 << 5;
        /// It knows [`command::WRITE_ZEROES`].
        const SEND_WRITE_ZEROES = 1 << 6;
    }
}

/// Options: what a client asks for in the handshake.
pub mod option {
    /// This export, without an answer if there is none.
    pub const EXPORT_NAME: u32 = 1;
    /// No more: the connection ends.
    pub const ABORT: u32 = 2;
    /// This export, with an answer.
    pub const GO: u32 = 7;
}

/// Kinds of answers to an option.
pub mod reply {
    /// Agreed, and the last of them.
    pub const ACK: u32 = 1;
    /// Something about the export.
    pub const INFO: u32 = 3;
    /// From here on they are errors.
    pub const ERRORS: u32 = 1 << 31;
    /// It does not know the option.
    pub const ERR_UNSUP: u32 = ERRORS + 1;
    /// It may not.
    pub const ERR_POLICY: u32 = ERRORS + 2;
    /// It wants TLS first.
    pub const ERR_TLS_REQD: u32 = ERRORS + 5;
    /// It has no such export.
    pub const ERR_UNKNOWN: u32 = ERRORS + 6;
    /// It is going down.
    pub const ERR_SHUTDOWN: u32 = ERRORS + 7;
}

/// What a [`reply::INFO`] is about.
pub mod info {
    /// Size and abilities.
    pub const EXPORT: u16 = 0;
    /// Limits to what a command may cover.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands.
pub mod command {
    /// Bytes to us.
    pub const READ: u16 = 0;
    /// Bytes from us.
    pub const WRITE: u16 = 1;
    /// The end; there is no reply.
    pub const DISCONNECT: u16 = 2;
    /// What was answered becomes durable.
    pub const FLUSH: u16 = 3;
    /// The content is no longer needed.
    pub const TRIM: u16 = 4;
    /// Zeroes.
    pub const WRITE_ZEROES: u16 = 6;
    /// Answered when it is durable.
    pub const FLAG_FUA: u16 = 1 << 0;
    /// The zeroes keep their place in the storage.
    pub const FLAG_NO_HOLE: u16 = 1 << 1;
}

/// Errors of commands that are told from the others.
pub mod error {
    /// The command is not supported.
    pub const NOT_SUPPORTED: u32 = 95;
    /// The server is going down, and wants the client to leave.
    pub const SHUTDOWN: u32 = 108;
}

/// The first thing a server says.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct Greeting {
    /// [`SERVER_MAGIC`]
    pub server_magic: U64,
    /// [`OPTION_MAGIC`]
    pub option_magic: U64,
    /// [`HandshakeFlags`]
    pub flags: U16,
}

/// What stands before the data of an option.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct OptionHeader {
    /// [`OPTION_MAGIC`]
    pub magic: U64,
    /// Of [`option`].
    pub option: U32,
    /// Bytes of data.
    pub length: U32,
}

/// What stands before the data of an answer to an option.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct OptionReply {
    /// [`OPTION_REPLY_MAGIC`]
    pub magic: U64,
    /// The option that is answered.
    pub option: U32,
    /// Of [`reply`].
    pub kind: U32,
    /// Bytes of data.
    pub length: U32,
}

/// Size and abilities, the answer to [`option::EXPORT_NAME`], and after its number, [`info::EXPORT`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct ExportInfo {
    /// Bytes.
    pub size: U64,
    /// [`ExportFlags`]
    pub flags: U16,
}

/// [`info::BLOCK_SIZE`], after its number.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockSizeInfo {
    /// Everything is a multiple of so many bytes.
    pub minimum: U32,
    /// What works well.
    pub preferred: U32,
    /// Most bytes of a read or write.
    pub payload_max: U32,
}

/// Bytes that follow the answer to [`option::EXPORT_NAME`] without [`HandshakeFlags::NO_ZEROES`].
pub const ZEROES: u32 = 124;

/// A command; the data of a write follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct Request {
    /// [`REQUEST_MAGIC`]
    pub magic: U32,
    /// Of [`command`].
    pub flags: U16,
    /// Of [`command`].
    pub kind: U16,
    /// The client's name for it.
    pub cookie: U64,
    /// First byte.
    pub offset: U64,
    /// Bytes.
    pub length: U32,
}

/// The answer to a command; the data of a read follow, if there was no error.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct SimpleReply {
    /// [`SIMPLE_REPLY_MAGIC`]
    pub magic: U32,
    /// 0 for none; else of [`error`], or another.
    pub error: U32,
    /// That of the command.
    pub cookie: U64,
}

const _: () = {
    assert!(size_of::<Greeting>() == 18);
    assert!(size_of::<OptionHeader>() == 16);
    assert!(size_of::<OptionReply>() == 20);
    assert!(size_of::<ExportInfo>() == 10);
    assert!(size_of::<BlockSizeInfo>() == 12);
    assert!(size_of::<Request>() == 28);
    assert!(size_of::<SimpleReply>() == 16);
};
