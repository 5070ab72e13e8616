//! SECURITY.md names tests and constants: here is seen that they are there, and where it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files below a folder.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// The names that are defined in a file by `keyword`.
fn defined<'a>(text: &'a str, keyword: &str) -> BTreeSet<&'a str> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let definitions = text.lines().filter_map(|line| {
        let (before, after) = line.split_once(keyword)?;
        before.chars().all(|letter| is_of_name(letter) || " ()".contains(letter)).then_some(after)
    });
    definitions.filter_map(|after| after.split(|letter| !is_of_name(letter)).next()).collect()
}

/// What stands in code font in a line.
fn in_code_font(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_constant(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
}

/// Names of functions have more words than others that are in code font.
fn is_test(name: &str) -> bool {
    name.matches('_').count() > 1
        && name.chars().all(|letter| letter == '_' || letter.is_ascii_lowercase() || letter.is_ascii_digit())
}

#[test]
fn what_security_md_names_is_there() {
    let text = fs::read_to_string(workspace().join("SECURITY.md")).unwrap();
    let mut files = Vec::new();
    for package in ["drivers", "kernel"] {
        ["src", "tests"]
            .map(|folder| workspace().join(package).join(folder))
            .iter()
            .filter(|folder| folder.exists())
            .for_each(|folder| sources(folder, &mut files));
    }
    let code: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let functions: BTreeSet<&str> = code.iter().flat_map(|text| defined(text, "fn ")).collect();
    let (mut tests, mut constants) = (0, 0);
    for line in text.lines() {
        let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let linked: Vec<&str> = links.filter_map(|link| link.split('#').next()).collect();
        linked.iter().for_each(|file| assert!(workspace().join(file).exists(), "{file}: {line}"));
        let linked_code: Vec<String> = linked
            .iter()
            .filter(|file| file.ends_with(".rs"))
            .map(|file| fs::read_to_string(workspace().join(file)).unwrap())
            .collect();
        for name in in_code_font(line) {
            if name.starts_with("tests/xen/") && name != "tests/xen/NAME.sh" {
                assert!(workspace().join(name).exists(), "{name}");
            } else if is_test(name) {
                tests += 1;
                assert!(functions.contains(name), "there is no test {name}");
            } else if is_constant(name) {
                constants += 1;
                let is_there = linked_code.iter().any(|text| defined(text, "const ").contains(name));
                assert!(is_there, "{name} is in none of the files of its line");
            }
        }
    }
    assert!(tests > 100 && constants > 50, "{tests} tests, {constants} constants");
}
