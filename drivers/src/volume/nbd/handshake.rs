//! The handshake with an NBD server, up to the export (NBD protocol, "Fixed newstyle negotiation"). Pure: bytes in, bytes
//! out.
//!
//! ```text
//!   greeting ──> flags, GO ──> INFO … ACK ──────────────────> the export
//!        │                └ ERR_UNSUP ─> EXPORT_NAME ─> size ─┘
//!        └ a server that does not answer options ─┘
//! ```
//! It takes no byte more than it needs: what follows is for [`super::drive`].

use super::NbdError;
use super::export::Export;
use super::wire::{
    BlockSizeInfo, ExportInfo, Greeting, HandshakeFlags, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader,
    OptionReply, SERVER_MAGIC, ZEROES, info, option, reply,
};
use alloc::vec::Vec;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

/// Most bytes of an answer: error messages are text of at most 4096.
const ANSWER_BYTES_MAX: u32 = 8192;
/// Most answers to one option.
const ANSWERS_MAX: u32 = 64;
/// The longest piece.
const PIECE_BYTES_MAX: usize = size_of::<OptionReply>();
/// The longest information that is looked at: its number, and [`BlockSizeInfo`].
const INFO_BYTES_MAX: u32 = 14;

/// What comes next from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    /// The header of an answer.
    Answer,
    /// The beginning of what is told about the export.
    Info,
    /// The answer to [`option::EXPORT_NAME`].
    Export,
    /// Padding after it.
    Zeroes,
}

/// A handshake.
pub struct Handshake {
    name: Vec<u8>,
    stage: Stage,
    piece: [u8; PIECE_BYTES_MAX],
    /// Bytes of `piece` that came, and that are to come.
    came: usize,
    wanted: usize,
    /// Bytes to be thrown away first.
    to_skip: u32,
    answers: u32,
    /// Bytes of the information that is coming.
    info_bytes: u32,
    has_zeroes: bool,
    export: Option<ExportInfo>,
    block_size: Option<BlockSizeInfo>,
    to_send: Vec<u8>,
    sent: usize,
}

impl Handshake {
    /// A handshake for the export `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            stage: Stage::Greeting,
            piece: [0; PIECE_BYTES_MAX],
            came: 0,
            wanted: size_of::<Greeting>(),
            to_skip: 0,
            answers: 0,
            info_bytes: 0,
            has_zeroes: true,
            export: None,
            block_size: None,
            to_send: Vec::new(),
            sent: 0,
        }
    }

    /// What is to be sent now.
    #[must_use]
    pub fn to_send(&self) -> &[u8] {
        self.to_send.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// Takes what came by `receive`, as [`crate::connection::Connection::receive`] hands it over. Returns the export
    /// once the handshake is done.
    ///
    /// # Errors
    /// [`NbdError`]: the server refuses, or breaks the protocol.
    pub fn receive(
        &mut self,
        mut receive: impl FnMut(&mut [u8]) -> usize,
    ) -> Result<Option<Export>, NbdError> {
        loop {
            while self.to_skip > 0 {
                let mut skipped = [0; 64];
                let most = skipped.len().min(self.to_skip as usize);
                let came = receive(skipped.get_mut(..most).unwrap_or_default()).min(most);
                if came == 0 {
                    return Ok(None);
                }
                self.to_skip = self.to_skip.saturating_sub(u32::try_from(came).unwrap_or(u32::MAX));
            }
            while self.came < self.wanted {
                let room = self.piece.get_mut(self.came..self.wanted).unwrap_or_default();
                let came = receive(room).min(room.len());
                if came == 0 {
                    return Ok(None);
                }
                self.came += came;
            }
            if let Some(export) = self.advance()? {
                return Ok(Some(export));
            }
        }
    }

    /// What it means that the server ends the connection now.
    #[must_use]
    pub fn ended(&self) -> NbdError {
        match self.stage {
            Stage::Greeting if self.came == 0 => NbdError::Unreachable,
            Stage::Export => NbdError::EndedAtName,
            _ => NbdError::Ended,
        }
    }

    /// Whether the server listens to options, and so would like to hear [`option::ABORT`] before an end.
    #[must_use]
    pub fn can_abort(&self) -> bool {
        self.stage == Stage::Answer && self.to_send().is_empty()
    }

    /// A whole piece came.
    fn advance(&mut self) -> Result<Option<Export>, NbdError> {
        match self.stage {
            Stage::Greeting => self.greeting().map(|()| None),
            Stage::Answer => self.answer(),
            Stage::Info => self.info().map(|()| None),
            Stage::Export => {
                self.export = Some(self.take_piece()?);
                if self.has_zeroes {
                    self.to_skip = ZEROES;
                    self.expect(Stage::Zeroes, 0);
                    return Ok(None);
                }
                self.finish().map(Some)
            }
            Stage::Zeroes => self.finish().map(Some),
        }
    }

    fn greeting(&mut self) -> Result<(), NbdError> {
        let greeting: Greeting = self.take_piece()?;
        if greeting.server_magic.get() != SERVER_MAGIC {
            return Err(NbdError::Protocol("it is no NBD server"));
        }
        if greeting.option_magic.get() != OPTION_MAGIC {
            return Err(NbdError::Protocol("it knows the oldstyle handshake alone"));
        }
        let flags = HandshakeFlags::from_bits_truncate(greeting.flags.get().into());
        self.has_zeroes = !flags.contains(HandshakeFlags::NO_ZEROES);
        self.to_send.extend_from_slice(U32::new(flags.bits()).as_bytes());
        if flags.contains(HandshakeFlags::FIXED_NEWSTYLE) {
            self.ask_to_go();
        } else {
            self.ask_by_name();
        }
        Ok(())
    }

    /// NBD_OPT_GO: the name, and which information is wanted beside size and abilities.
    fn ask_to_go(&mut self) {
        let name = core::mem::take(&mut self.name);
        let name_length = U32::new(u32::try_from(name.len()).unwrap_or(u32::MAX));
        let wanted = [U16::new(1), U16::new(info::BLOCK_SIZE)];
        self.ask(option::GO, &[name_length.as_bytes(), &name, wanted.as_bytes()]);
        self.name = name;
        self.expect(Stage::Answer, size_of::<OptionReply>());
    }

    fn ask_by_name(&mut self) {
        let name = core::mem::take(&mut self.name);
        self.ask(option::EXPORT_NAME, &[&name]);
        self.expect(Stage::Export, size_of::<ExportInfo>());
    }

    fn ask(&mut self, option: u32, data: &[&[u8]]) {
        let length: usize = data.iter().map(|part| part.len()).sum();
        self.to_send.extend_from_slice(option_header(option, length).as_bytes());
        data.iter().for_each(|part| self.to_send.extend_from_slice(part));
    }

    fn answer(&mut self) -> Result<Option<Export>, NbdError> {
        let answer: OptionReply = self.take_piece()?;
        if answer.magic.get() != OPTION_REPLY_MAGIC || answer.option.get() != option::GO {
            return Err(NbdError::Protocol("an answer to no question"));
        }
        self.answers += 1;
        let length = answer.length.get();
        if length > ANSWER_BYTES_MAX || self.answers > ANSWERS_MAX {
            return Err(NbdError::Protocol("endless answers"));
        }
        match answer.kind.get() {
            reply::ACK if length == 0 => return self.finish().map(Some),
            reply::INFO if length >= 2 => {
                self.info_bytes = length;
                self.expect(Stage::Info, length.min(INFO_BYTES_MAX) as usize);
            }
            reply::ERR_UNSUP => {
                self.to_skip = length;
                self.ask_by_name();
            }
            reply::ERR_UNKNOWN => return Err(NbdError::NoExport),
            reply::ERR_TLS_REQD => return Err(NbdError::TlsRequired),
            reply::ERR_POLICY => return Err(NbdError::Policy),
            reply::ERR_SHUTDOWN => return Err(NbdError::ShuttingDown),
            error if error >= reply::ERRORS => return Err(NbdError::Refused(error - reply::ERRORS)),
            _ => return Err(NbdError::Protocol("an answer of no known kind")),
        }
        Ok(None)
    }

    fn info(&mut self) -> Result<(), NbdError> {
        let piece = self.piece;
        let Some((kind, content)) = piece.get(..self.wanted).and_then(|piece| piece.split_at_checked(2))
        else {
            return Err(NbdError::Protocol("an information without a number"));
        };
        match U16::read_from_bytes(kind).map(U16::get) {
            Ok(info::EXPORT) => self.export = Some(read(content)?),
            Ok(info::BLOCK_SIZE) => self.block_size = Some(read(content)?),
            _ => {}
        }
        self.to_skip = self.info_bytes.saturating_sub(INFO_BYTES_MAX);
        self.expect(Stage::Answer, size_of::<OptionReply>());
        Ok(())
    }

    fn finish(&self) -> Result<Export, NbdError> {
        let info = self.export.ok_or(NbdError::Protocol("it does not tell the size of the export"))?;
        Export::new(&info, self.block_size.as_ref())
    }

    fn expect(&mut self, stage: Stage, bytes: usize) {
        (self.stage, self.came, self.wanted) = (stage, 0, bytes.min(PIECE_BYTES_MAX));
    }

    fn take_piece<T: FromBytes>(&self) -> Result<T, NbdError> {
        read(self.piece.get(..self.wanted).unwrap_or_default())
    }
}

/// The option that ends a handshake.
#[must_use]
pub fn abort() -> OptionHeader {
    option_header(option::ABORT, 0)
}

fn option_header(option: u32, length: usize) -> OptionHeader {
    OptionHeader {
        magic: OPTION_MAGIC.into(),
        option: option.into(),
        length: u32::try_from(length).unwrap_or(u32::MAX).into(),
    }
}

fn read<T: FromBytes>(bytes: &[u8]) -> Result<T, NbdError> {
    T::read_from_bytes(bytes).map_err(|_| NbdError::Protocol("an information of the wrong length"))
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
