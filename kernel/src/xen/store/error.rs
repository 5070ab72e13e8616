//! Why a xenstore request failed, in as many words as a caller has different things to do.
//!
//! Neighbours: [`super::wire`] makes these from error replies, [`super::client`] when the connection dies.

/// Failure of one request, or of the whole connection ([`StoreError::Disconnected`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// ENOENT: no such node, watch or transaction.
    #[error("not found")]
    NotFound,
    /// EAGAIN: somebody else changed what the transaction touched; start it over.
    #[error("conflict, try again")]
    Again,
    /// EACCES, EPERM, EROFS: this domain may not do that.
    #[error("permission denied")]
    Denied,
    /// EEXIST: there is one already, such as a watch with the same path and token.
    #[error("exists already")]
    Exists,
    /// ENOSPC, ENOMEM, EQUOTA: a quota of this domain, or the store's memory, is used up.
    #[error("quota used up")]
    Quota,
    /// EINVAL, or a path, token or value that cannot be what was asked for (a value read is not UTF-8).
    #[error("invalid path or value")]
    Invalid,
    /// A request longer than the wire allows, refused here and never sent; or E2BIG, when the reply is.
    #[error("too long")]
    TooLong,
    /// ENOSYS: this xenstore does not know the operation.
    #[error("not supported by this xenstore")]
    Unsupported,
    /// The reply does not fit the request.
    #[error("reply makes no sense")]
    Protocol,
    /// The connection is broken for good: indices or lengths of the other side cannot be true.
    #[error("connection to xenstore is broken")]
    Disconnected,
    /// Any other error name; the log has it at debug level.
    #[error("xenstore reports another error")]
    Other,
}

impl StoreError {
    /// The payload of an XS_ERROR reply: the name of an errno and a NUL (`xsd_errors` in xs_wire.h).
    #[must_use]
    pub fn from_reply(payload: &[u8]) -> Self {
        let name = payload.split(|&byte| byte == 0).next().unwrap_or_default();
        match name {
            b"ENOENT" => Self::NotFound,
            b"EAGAIN" => Self::Again,
            b"EACCES" | b"EPERM" | b"EROFS" => Self::Denied,
            b"EEXIST" => Self::Exists,
            b"ENOSPC" | b"ENOMEM" | b"EQUOTA" => Self::Quota,
            b"EINVAL" => Self::Invalid,
            b"E2BIG" => Self::TooLong,
            b"ENOSYS" => Self::Unsupported,
            other => {
                log::debug!("xenstore: error {}", other.get(..32).unwrap_or(other).escape_ascii());
                Self::Other
            }
        }
    }
}
