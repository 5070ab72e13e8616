//! Prometheus' own tool, which judges a page of metrics: Debian's, for this host.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::{Apt, SUITE};
use crate::cache::Cache;

/// What Debian calls this host's processor.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The program.
pub fn unpacked(cache: &Cache) -> Result<PathBuf> {
    let inputs = [SUITE.as_bytes(), ARCHITECTURE.as_bytes()];
    let entry = cache.entry("promtool", "fetching promtool", &inputs, |work| {
        Apt::open(cache)?.unpack(SUITE, &[format!("promtool:{ARCHITECTURE}")], &work.join("root"))
    })?;
    Ok(entry.join("root/usr/bin/promtool"))
}
