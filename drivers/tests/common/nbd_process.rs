//! Real NBD servers on this machine, and connections to them. Needs Debian's packages qemu-utils and nbd-server.

use drivers::connection::{Connection, ConnectionState};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A connection over a socket of the host.
pub struct Socket {
    server: SocketAddrV4,
    stream: Option<TcpStream>,
}

impl Socket {
    pub fn new(server: SocketAddrV4) -> Self {
        Self { server, stream: None }
    }
}

impl Connection for Socket {
    fn open(&mut self) {
        // On this machine there is nothing to wait for.
        self.stream = TcpStream::connect_timeout(&self.server.into(), Duration::from_secs(1)).ok();
        if let Some(stream) = &self.stream {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
        }
    }

    fn close(&mut self) {
        self.stream = None;
    }

    fn state(&self) -> ConnectionState {
        let Some(stream) = &self.stream else { return ConnectionState::Closed };
        match stream.peek(&mut [0]) {
            Ok(0) => ConnectionState::Closed,
            Err(error) if error.kind() != ErrorKind::WouldBlock => ConnectionState::Closed,
            _ => ConnectionState::Open,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.stream.as_mut().and_then(|stream| stream.write(bytes).ok()).unwrap_or(0)
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        self.stream.as_mut().and_then(|stream| stream.read(bytes).ok()).unwrap_or(0)
    }
}

/// A directory that is gone in the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server process, killed in the end.
pub struct Server {
    child: Child,
    pub address: SocketAddrV4,
}

impl Server {
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start(mut command: Command, address: SocketAddrV4) -> Self {
        let program = command.get_program().to_owned();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let why = "see the module's documentation for the packages that are needed";
        let child = child.unwrap_or_else(|error| panic!("{}: {error}: {why}", program.display()));
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens at now.
pub fn free_address() -> SocketAddrV4 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port())
}

/// `qemu-nbd` with an export `disk` of `image`, for any number of connections one after another.
pub fn qemu_nbd(image: &Path, address: SocketAddrV4, more: &[&str]) -> Server {
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--shared=4", "--format=raw", "--discard=unmap", "--export-name=disk"]);
    command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(more).arg(image);
    Server::start(command, address)
}

/// Debian's `nbd-server` with an export `disk` of `image`, for one connection; `more` lines say more about it.
pub fn nbd_server(image: &Path, address: SocketAddrV4, more: &str) -> Server {
    let config = image.with_extension("conf");
    let text = format!(
        "[generic]\nlistenaddr = {}\nport = {}\n[disk]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n{more}",
        address.ip(),
        address.port(),
        image.display(),
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("nbd-server");
    // No fork: this very process serves the first client, and ends with it.
    command.args(["-d", "-C"]).arg(config);
    Server::start(command, address)
}
