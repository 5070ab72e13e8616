//! Debian packages of another architecture and release than the host's, by a private apt configuration.
//!
//! Nothing of the host's own apt is changed. Signatures and hashes are checked by apt as always. The mirror is the one that the host
//! itself uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, key};
use crate::{progress, tool};

/// The release that Xen, Linux and all of Dom0 and the guests come from.
pub const SUITE: &str = "trixie";
/// Where newer Rust sources are.
pub const BACKPORTS: &str = "trixie-backports";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Names the mirror on a host that is not Debian.
const MIRROR_VARIABLE: &str = "DEBIAN_MIRROR";

/// An apt of our own.
pub struct Apt {
    mirror: String,
    folder: PathBuf,
    config: PathBuf,
}

/// One file of a source package.
pub struct SourceFile {
    /// Where it is.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// `SHA256:` and the hash, from the signed list.
    pub hash: String,
}

impl Apt {
    /// The configuration under `cache`; fetches the lists of packages at the first use.
    pub fn open(cache: &Cache) -> Result<Self> {
        let mirror = mirror()?;
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: please run\n  sudo apt-get install debian-archive-keyring");
        }
        let _lock = cache.lock("apt")?;
        let folder = cache.root().join("apt");
        let sources = format!(
            "deb [arch=amd64,arm64 signed-by={KEYRING}] {mirror} {SUITE} main\n\
             deb-src [signed-by={KEYRING}] {mirror} {SUITE} main\n\
             deb [arch=amd64 signed-by={KEYRING}] {mirror} {BACKPORTS} main\n"
        );
        let apt = Self { mirror, config: folder.join("apt.conf"), folder };
        let ready = apt.folder.join(format!("ready-{}", key(&[sources.as_bytes()])));
        if !ready.exists() {
            apt.write_configuration(&sources)?;
            progress::step("fetching Debian's lists of packages", || apt.update())?;
            fs::write(&ready, "").context("cannot write to the cache")?;
        }
        Ok(apt)
    }

    /// Downloads `packages` (each as `name:architecture`) of `suite` and unpacks them all into `root`.
    pub fn unpack(&self, suite: &str, packages: &[String], root: &Path) -> Result<()> {
        let downloads = root.with_extension("downloads");
        self.download(suite, packages, &downloads)?;
        for file in fs::read_dir(&downloads)? {
            tool::run(Command::new("dpkg-deb").arg("-x").arg(file?.path()).arg(root))?;
        }
        fs::remove_dir_all(&downloads)?;
        Ok(())
    }

    /// Downloads `packages` (each as `name:architecture`) of `suite` to `folder`.
    pub fn download(&self, suite: &str, packages: &[String], folder: &Path) -> Result<()> {
        let names: Vec<String> = packages
            .iter()
            .map(|name| if name.contains('=') { name.clone() } else { format!("{name}/{suite}") })
            .collect();
        self.fetch_packages(folder, || {
            let mut download = self.command("apt-get");
            download.arg("download").args(&names).current_dir(folder);
            download
        })
    }

    /// Downloads the arm64 packages `names` of `suite` to `folder`, with all that they depend on, as for an empty machine.
    pub fn download_all(&self, suite: &str, names: &[&str], folder: &Path) -> Result<()> {
        fs::create_dir_all(folder.join("partial"))?;
        self.fetch_packages(folder, || {
            let mut install = self.command("apt-get");
            install.args(["install", "--download-only", "--no-install-recommends", "-q", "-y", "-t", suite]);
            install.args(["-o", "APT::Architecture=arm64", "-o"]);
            install.arg(format!("Dir::Cache::archives={}", folder.display())).args(names);
            install
        })
    }

    /// Runs the `download` to `folder`; when that fails, once more with new lists.
    fn fetch_packages(&self, folder: &Path, download: impl Fn() -> Command) -> Result<()> {
        fs::create_dir_all(folder)?;
        if tool::run(&mut download()).is_err() {
            // The lists may be older than the last point release.
            self.update()?;
            tool::run(&mut download()).context("apt could not download packages: is the network there?")?;
        }
        Ok(())
    }

    /// The first package that `package` (a metapackage) depends on.
    pub fn first_dependency(&self, package: &str) -> Result<String> {
        let text = tool::text(self.command("apt-cache").args(["depends", package]))?;
        let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        found
            .map(|name| name.trim_end_matches(":arm64").to_owned())
            .with_context(|| format!("{package} depends on nothing: it should name a kernel"))
    }

    /// The version of `package` in any suite that starts with `upstream` and `+` or `-`.
    pub fn version(&self, package: &str, upstream: &str) -> Result<Option<String>> {
        let text = tool::text(self.command("apt-cache").args(["madison", package]))?;
        let mut versions = text.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
        let fits =
            |version: &&str| version.strip_prefix(upstream).is_some_and(|rest| rest.starts_with(['+', '-']));
        Ok(versions.find(fits).map(str::to_owned))
    }

    /// The upstream archive of the source package `package`.
    pub fn source_archive(&self, package: &str) -> Result<SourceFile> {
        let text = tool::text(
            self.command("apt-get").args(["source", "--print-uris"]).arg(format!("{package}/{SUITE}")),
        )?;
        let line = text
            .lines()
            .find(|line| line.contains(".orig.tar."))
            .with_context(|| format!("no upstream archive of {package} in {SUITE}"))?;
        let mut words = line.split_whitespace();
        let (Some(uri), Some(name), Some(_size), Some(hash)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("apt describes the source of {package} in a form that is not known: {line}");
        };
        Ok(SourceFile {
            uri: uri.trim_matches('\'').to_owned(),
            name: name.to_owned(),
            hash: hash.to_owned(),
        })
    }

    /// An upstream archive of the source package `package`, of a version that the lists need not name any more.
    pub fn known_archive(&self, package: &str, name: &str, hash: &str) -> SourceFile {
        let first = &package[..1];
        let uri = format!("{}/pool/main/{first}/{package}/{name}", self.mirror);
        SourceFile { uri, name: name.to_owned(), hash: hash.to_owned() }
    }

    /// Downloads one source file and checks its hash.
    pub fn fetch(&self, file: &SourceFile, to: &Path) -> Result<()> {
        tool::run(
            self.command("/usr/lib/apt/apt-helper")
                .arg("download-file")
                .arg(&file.uri)
                .arg(to)
                .arg(&file.hash),
        )
    }

    fn update(&self) -> Result<()> {
        tool::run(self.command("apt-get").args(["update", "-q", "-o", "APT::Update::Error-Mode=any"]))
            .context("apt could not fetch the lists of packages: is the network there?")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    fn write_configuration(&self, sources: &str) -> Result<()> {
        for part in ["state", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(part))?;
        }
        let at = |name: &str| self.folder.join(name).display().to_string();
        fs::write(at("sources.list"), sources)?;
        fs::write(at("status"), "")?;
        let config = [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Dir::State", at("state")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("APT::Architecture", "amd64".into()),
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
        ];
        let mut text: String = config.iter().map(|(name, value)| format!("{name} \"{value}\";\n")).collect();
        text.push_str(
            "APT::Architectures {\"amd64\";\"arm64\";};\n#clear Acquire::IndexTargets::deb::DEP-11;\n",
        );
        fs::write(&self.config, text).context("cannot write to the cache")
    }
}

/// The Debian mirror that this host uses, in either form of apt's sources.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    // The distribution's own files first: others may name archives of a vendor.
    let mut files =
        vec![PathBuf::from("/etc/apt/sources.list"), PathBuf::from("/etc/apt/sources.list.d/debian.sources")];
    files.extend(
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path()),
    );
    let text = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n");
    find_mirror(&text).with_context(|| {
        format!("this host's apt names no Debian mirror; is it another distribution? Set {MIRROR_VARIABLE} to the address of a Debian mirror (…/debian)")
    })
}

fn find_mirror(sources: &str) -> Option<String> {
    let lines = sources.lines().filter(|line| line.starts_with("URIs:") || line.starts_with("deb "));
    let words = lines.flat_map(str::split_whitespace);
    words
        .map(|word| word.trim_end_matches('/'))
        .find(|word| word.contains("://") && word.ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::find_mirror;

    #[test]
    fn mirror_is_found_in_both_forms() {
        let new = "Types: deb\nURIs: http://a.example/debian-security\n\nTypes: deb\nURIs: http://a.example/debian/\n";
        let old = "# comment\ndeb [arch=amd64] https://b.example/debian trixie main\n";
        assert_eq!(find_mirror(new).as_deref(), Some("http://a.example/debian"));
        assert_eq!(find_mirror(old).as_deref(), Some("https://b.example/debian"));
        assert_eq!(find_mirror("deb https://c.example/ubuntu noble main"), None);
    }
}
