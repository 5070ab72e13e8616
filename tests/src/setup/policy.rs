//! The FLASK policy: Xen's own example policy and one module more, which gives the driver domain its rights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::xen;
use crate::cache::Cache;
use crate::tool;

/// The module's name, and of its file under `boot/flask`.
const MODULE: &str = "driver_domain";

/// The compiled policy, a module of Xen's boot. Built anew when the module's text changes; Xen is not.
pub fn build(cache: &Cache, workspace: &Path) -> Result<PathBuf> {
    let source = xen::source(cache)?;
    let module = workspace.join(format!("boot/flask/{MODULE}.te"));
    let text = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    let inputs = [text.as_slice(), source.as_os_str().as_encoded_bytes()];
    let entry = cache.entry("flask-policy", "compiling the FLASK policy", &inputs, |work| {
        let tree = work.join("tree");
        let policy = tree.join("tools/flask/policy");
        for folder in ["tools/flask", "xen/xsm/flask"] {
            fs::create_dir_all(tree.join(folder))?;
            tool::run(
                Command::new("cp").arg("-r").arg(source.join(folder).join("policy")).arg(tree.join(folder)),
            )?;
        }
        fs::write(policy.join(format!("modules/{MODULE}.te")), &text)?;
        let list = policy.join("modules/modules.conf");
        let modules = fs::read_to_string(&list)?;
        fs::write(&list, format!("{modules}\n{MODULE} = on\n"))?;
        let mut make = Command::new("make");
        make.arg("-C").arg(&policy).args(["-f", "Makefile.common", "all"]);
        make.arg(format!("FLASK_BUILD_DIR={}", work.display()))
            .arg(format!("POLICY_FILENAME={}", work.join("policy").display()));
        make.arg(format!("XEN_FULLVERSION={}", xen::RELEASE)).env_remove("MAKEFLAGS");
        tool::run(&mut make).with_context(|| format!("is there an error in {}?", module.display()))?;
        fs::remove_dir_all(tree).context("cannot remove the build's tree")
    })?;
    Ok(entry.join("policy"))
}
