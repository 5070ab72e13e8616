//! The servers: programs of Debian's on a port of the loopback, and an HTTP server of our own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{free_port, http};
use crate::bed::physical_disk::make_empty;
use crate::boot_tests::bytes;

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Runs a server, "$@", until nothing more is to come from standard input, or we are interrupted: so it ends with us, however we end. Then
/// all its processes are ended at once. A daemon says in the file "$0" which it is.
const SUPERVISOR: &str = r#"
trap 'kill -KILL -- "-$(cat "$0" 2>/dev/null || echo "$server")"; rm -f "$0"' EXIT
set -m
"$@" &
server=$!
read -r _
"#;

/// A server that a test asks for.
#[derive(Clone, Debug)]
pub enum Service {
    /// A file to download, and a place to upload to.
    Http,
    /// iperf3 as a server.
    Iperf3,
    /// The real qemu-nbd with an export named `disk` of so many zero bytes.
    QemuNbd(u64),
    /// Debian's nbd-server, the same.
    NbdServer(u64),
}

/// One that was started.
pub struct Running {
    service: Service,
    port: u16,
    image: PathBuf,
    configuration: PathBuf,
    pid_file: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl FromStr for Service {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["http"] => Self::Http,
            ["iperf3"] => Self::Iperf3,
            ["qemu-nbd", size] => Self::QemuNbd(bytes(size)?),
            ["nbd-server", size] => Self::NbdServer(bytes(size)?),
            _ => {
                bail!("the host has no service `{text}`; it has http, iperf3, qemu-nbd SIZE, nbd-server SIZE")
            }
        })
    }
}

impl Service {
    /// The name in a test's head, in requests, and with `_` in variables.
    fn name(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Iperf3 => "iperf3",
            Self::QemuNbd(_) => "qemu-nbd",
            Self::NbdServer(_) => "nbd-server",
        }
    }

    /// Starts it; its files are in `folder`.
    pub fn start(&self, folder: &Path) -> Result<Running> {
        let file = |ending: &str| folder.join(format!("{}.{ending}", self.name()));
        let mut running = Running {
            service: self.clone(),
            port: free_port()?,
            image: file("img"),
            configuration: file("conf"),
            pid_file: file("pid"),
            log: file("log"),
            child: None,
        };
        match self {
            Self::Http => running.port = http::start()?,
            Self::QemuNbd(bytes) | Self::NbdServer(bytes) => make_empty(&running.image, *bytes)?,
            Self::Iperf3 => {}
        }
        running.restart()?;
        Ok(running)
    }
}

impl Running {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.service.name()
    }

    /// What scripts are told of it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let name = self.name().to_uppercase().replace('-', "_");
        let mut variables = vec![(format!("{name}_PORT"), self.port.to_string())];
        match self.service {
            Service::Http => variables.push((format!("{name}_SHA256"), http::checksum().to_owned())),
            Service::QemuNbd(_) | Service::NbdServer(_) => {
                variables.push((format!("{name}_IMAGE"), self.image.display().to_string()));
            }
            Service::Iperf3 => {}
        }
        variables
    }

    /// Starts it, on the same port and with the same image as before.
    pub fn restart(&mut self) -> Result<()> {
        let Some(server) = self.command()? else { return Ok(()) };
        if self.child.is_some() {
            bail!("{} runs", self.name());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut supervisor = Command::new("bash");
        supervisor.args(["-c", SUPERVISOR]).arg(&self.pid_file).args(server);
        supervisor.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(supervisor.spawn().with_context(|| format!("{} cannot be started", self.name()))?);
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if start.elapsed() > START_LIMIT {
                bail!("{} does not listen: {}", self.name(), fs::read_to_string(&self.log)?);
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it in the middle of what it does.
    pub fn kill(&mut self) -> Result<()> {
        let mut supervisor = self.child.take().with_context(|| format!("{} does not run", self.name()))?;
        drop(supervisor.stdin.take());
        supervisor.wait().map(|_| ()).context("cannot wait for a killed server")
    }

    /// The program and its arguments; none for the server that is within this one.
    fn command(&self) -> Result<Option<Vec<String>>> {
        let port = self.port.to_string();
        let image = self.image.display().to_string();
        let words: Vec<&str> = match self.service {
            Service::Http => return Ok(None),
            Service::Iperf3 => vec!["iperf3", "--server", "--bind", "127.0.0.1", "--port", &port],
            Service::QemuNbd(_) => vec![
                "qemu-nbd",
                "--bind=127.0.0.1",
                "--port",
                &port,
                "--persistent",
                "--shared=8",
                "--format=raw",
                "--discard=unmap",
                "--export-name=disk",
                &image,
            ],
            Service::NbdServer(_) => {
                let configuration = format!(
                    "[generic]\nlistenaddr = 127.0.0.1\nport = {port}\nallowlist = true\n\
                     [disk]\nexportname = {image}\nflush = true\nfua = true\ntrim = true\n"
                );
                fs::write(&self.configuration, configuration)?;
                // With -d it would serve one client, and end.
                let (configuration, pid_file) = (self.configuration.to_str(), self.pid_file.to_str());
                let no_text = "the run's folder has a name that is no text";
                vec!["nbd-server", "-C", configuration.context(no_text)?, "-p", pid_file.context(no_text)?]
            }
        };
        Ok(Some(words.into_iter().map(str::to_owned).collect()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill();
        }
    }
}
