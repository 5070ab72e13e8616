//! A small HTTP server: `GET` of any path gives the same 64 MiB, `PUT` and `POST` are answered by the SHA-256 of what came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::pattern;

/// What is served.
const BYTES: usize = 64 << 20;
const PIECE_BYTES: usize = 1 << 16;
/// The pattern's key: no guest of a boot test writes with it.
const KEY: u64 = 200;

static CONTENT: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
    let words = (0..).flat_map(|index| pattern::word(KEY, index).to_le_bytes());
    words.take(BYTES).collect()
});
static CHECKSUM: LazyLock<String> = LazyLock::new(|| hexadecimal(Sha256::new_with_prefix(&**CONTENT)));

/// The SHA-256 of what is served.
pub fn checksum() -> &'static str {
    &CHECKSUM
}

/// Serves as long as this program runs; gives the port.
pub fn start() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port of the loopback is free")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One that went away in the middle is its client's affair.
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

/// One request.
fn serve(mut stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let method = line.split(' ').next().unwrap_or_default().to_owned();
    let mut length: usize = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    match method.as_str() {
        "GET" => answer(&mut stream, &CONTENT),
        "PUT" | "POST" => {
            let mut hash = Sha256::new();
            let mut piece = vec![0; PIECE_BYTES];
            while length > 0 {
                let part = &mut piece[..length.min(PIECE_BYTES)];
                reader.read_exact(part).context("the client went away")?;
                hash.update(&part);
                length -= part.len();
            }
            answer(&mut stream, format!("{}\n", hexadecimal(hash)).as_bytes())
        }
        _ => bail!("no method {method}"),
    }
}

fn answer(stream: &mut TcpStream, body: &[u8]) -> Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body).context("the client went away")
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{BYTES, checksum, start};
    use sha2::{Digest, Sha256};
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};

    fn ask(request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, start().unwrap())).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        answer.split_off(end)
    }

    #[test]
    fn what_is_served_has_its_checksum_and_so_has_what_is_sent() {
        let content = ask(b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(content.len(), BYTES);
        let upload =
            [format!("PUT /x HTTP/1.1\r\ncontent-length: {BYTES}\r\n\r\n").into_bytes(), content].concat();
        assert_eq!(ask(&upload), format!("{}\n", checksum()).into_bytes());
        assert_ne!(format!("{:x?}", Sha256::digest(b"")), checksum());
    }
}
