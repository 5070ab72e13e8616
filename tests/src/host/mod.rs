//! The host's part while a machine runs: servers that the machine reaches through its NIC, and scripts that Dom0's script asks for.
//!
//! `host WORD...` (tests/dom0/bed.sh) sends a request, and gets the answer. `host start SERVICE` and `host kill SERVICE` are for the
//! servers; `host NAME ARGUMENT...` runs `tests/host/NAME.sh` with bash, which finds the servers' variables, what `curl` and
//! `promtool` need, and a folder of its own to work in. Nothing but these scripts is run.

mod http;
mod service;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use service::Running;
pub use service::Service;

/// What a script of the host may take.
const SCRIPT_SECONDS: &str = "90";

/// The host's part of one run. The servers end with it.
pub struct Host {
    services: Vec<Running>,
    endpoint_port: Option<u16>,
    scripts: PathBuf,
    folder: PathBuf,
    promtool: PathBuf,
}

impl Host {
    /// Starts `services` for a run in `folder`.
    pub fn start(
        services: &[Service],
        has_nic: bool,
        promtool: &Path,
        workspace: &Path,
        folder: &Path,
    ) -> Result<Self> {
        let folder = folder.join("host");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            services: services.iter().map(|service| service.start(&folder)).collect::<Result<_>>()?,
            endpoint_port: has_nic.then(free_port).transpose()?,
            scripts: workspace.join("tests/host"),
            folder,
            promtool: promtool.to_owned(),
        })
    }

    /// The port of our loopback that leads to the driver domain's endpoint.
    pub fn endpoint_port(&self) -> Option<u16> {
        self.endpoint_port
    }

    /// What scripts are told of the servers: `NAME_PORT`, and more of some of them.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.services.iter().flat_map(Running::environment).collect()
    }

    /// Does what Dom0 asks for, `ID WORD...`, and gives the answer's lines, which all begin with `ID`; the last is `ID end STATUS`.
    pub fn answer(&mut self, request: &str) -> String {
        let (id, words) = request.split_once(' ').unwrap_or((request, ""));
        let words: Vec<&str> = words.split_whitespace().collect();
        let (text, status) =
            self.perform(&words).unwrap_or_else(|error| (format!("the host: {error:#}\n"), 1));
        let lines = text.lines().map(|line| format!("{id} {line}\n"));
        lines.chain([format!("{id} end {status}\n")]).collect()
    }

    fn perform(&mut self, words: &[&str]) -> Result<(String, i32)> {
        match *words {
            ["start", name] => self.service(name)?.restart()?,
            ["kill", name] => self.service(name)?.kill()?,
            [name, ref arguments @ ..] => return self.run(name, arguments),
            [] => bail!("nothing is asked for"),
        }
        Ok((String::new(), 0))
    }

    fn service(&mut self, name: &str) -> Result<&mut Running> {
        let found = self.services.iter_mut().find(|service| service.name() == name);
        found.with_context(|| format!("this test has no service {name}: add it to its head"))
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<(String, i32)> {
        let script = self.scripts.join(name).with_extension("sh");
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') || !script.exists() {
            bail!("there is no script {}", script.display());
        }
        let mut bash = Command::new("timeout");
        bash.arg(SCRIPT_SECONDS).arg("bash").arg(script).args(arguments).current_dir(&self.folder);
        bash.envs(self.environment()).env("PROMTOOL", &self.promtool);
        if let Some(port) = self.endpoint_port {
            bash.env("ENDPOINT", format!("http://127.0.0.1:{port}")).env("ENDPOINT_PORT", port.to_string());
        }
        let output = bash.output().context("bash cannot be started")?;
        let text = [output.stdout, output.stderr].concat();
        Ok((String::from_utf8_lossy(&text).into_owned(), output.status.code().unwrap_or(1)))
    }
}

/// A port of our loopback that nobody has now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port of the loopback is free")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::Host;
    use std::path::Path;

    /// What a host without services answers.
    fn answer(request: &str) -> String {
        let thread = std::thread::current().id();
        let folder = std::env::temp_dir().join(format!("host-{}-{thread:?}", std::process::id()));
        let mut host = Host::start(&[], true, Path::new("promtool"), Path::new("/nowhere"), &folder).unwrap();
        let answer = host.answer(request);
        std::fs::remove_dir_all(&folder).unwrap();
        answer
    }

    #[test]
    fn an_answer_ends_with_its_status_and_each_line_names_the_request() {
        let expected = "7 the host: this test has no service http: add it to its head\n7 end 1\n";
        assert_eq!(answer("7 start http"), expected);
    }

    #[test]
    fn nothing_but_the_scripts_is_run() {
        assert!(answer("1 ../../bin/true").ends_with("\n1 end 1\n"));
    }
}
