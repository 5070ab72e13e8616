//! What an HTTP client asks for: the head of its request, judged.

use httparse::{Error, Request, Status};

/// Most bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 2048;
/// Most header fields in it.
const FIELDS_MAX: usize = 32;

/// What can be had here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The page for people.
    Page,
    /// The metrics for Prometheus.
    Metrics,
}

/// Why a request is not fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP/1 request.
    Malformed,
    /// There is no such thing.
    NotFound,
    /// It asks for more than to read.
    NotAllowed,
    /// Its first line does not end.
    TargetTooLong,
    /// Its head does not end, or has too many fields.
    HeadTooLarge,
    /// There is no memory for the answer.
    Unavailable,
}

/// How the answer is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it is about.
    pub about: Result<Resource, Refusal>,
    /// Only the head of the answer is wanted (RFC 9110, 9.3.2).
    pub head_only: bool,
}

impl From<Refusal> for Wish {
    fn from(refusal: Refusal) -> Self {
        Self { about: Err(refusal), head_only: false }
    }
}

/// Reads the first `bytes` of a connection; none as long as more of the head has to come. `is_full` says that no more can.
#[must_use]
pub fn read(bytes: &[u8], is_full: bool) -> Option<Wish> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => Some(judge(&request)),
        Ok(Status::Partial) if !is_full => None,
        Ok(Status::Partial) if request.version.is_none() => Some(Refusal::TargetTooLong.into()),
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => Some(Refusal::HeadTooLarge.into()),
        Err(_) => Some(Refusal::Malformed.into()),
    }
}

fn judge(request: &Request<'_, '_>) -> Wish {
    let head_only = request.method == Some("HEAD");
    if !head_only && request.method != Some("GET") {
        return Refusal::NotAllowed.into();
    }
    let target = request.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let about = match path {
        "/" => Ok(Resource::Page),
        "/metrics" => Ok(Resource::Metrics),
        _ => Err(Refusal::NotFound),
    };
    Wish { about, head_only }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn about(head: &str) -> Option<Result<Resource, Refusal>> {
        read(head.as_bytes(), head.len() >= HEAD_BYTES_MAX).map(|wish| wish.about)
    }

    #[test]
    fn what_there_is_can_be_read() {
        assert_eq!(about("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Ok(Resource::Page)));
        assert_eq!(about("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Some(Ok(Resource::Metrics)));
        assert_eq!(about("GET /favicon.ico HTTP/1.1\r\n\r\n"), Some(Err(Refusal::NotFound)));
        assert_eq!(about("GET /metrics HTTP/1.1\r\nHost:"), None);
        let head = read(b"HEAD / HTTP/1.1\r\n\r\n", false);
        assert_eq!(head, Some(Wish { about: Ok(Resource::Page), head_only: true }));
    }

    #[test]
    fn nothing_can_be_done_but_read() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get"] {
            let head = std::format!("{method} / HTTP/1.1\r\n\r\n");
            assert_eq!(about(&head), Some(Err(Refusal::NotAllowed)), "{method}");
        }
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for head in
            ["\0\0\0\0", "GET\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "GET / x y\r\n"]
        {
            assert_eq!(about(head), Some(Err(Refusal::Malformed)), "{head:?}");
        }
    }

    #[test]
    fn what_does_not_end_is_too_long() {
        let target = std::format!("GET /{}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(about(&target), Some(Err(Refusal::TargetTooLong)));
        let field = std::format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(about(&field), Some(Err(Refusal::HeadTooLarge)));
        let fields = std::format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(about(&fields), Some(Err(Refusal::HeadTooLarge)));
    }

    proptest! {
        /// Whatever comes is judged, at the latest when there is no room for more.
        #[test]
        fn there_is_always_an_end(bytes in proptest::collection::vec(any::<u8>(), HEAD_BYTES_MAX)) {
            prop_assert!(read(&bytes, true).is_some());
        }
    }
}
