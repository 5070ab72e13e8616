//! The inputs that the project keeps: a file for each target, a line of hexadecimal digits for each.

use std::path::Path;

/// The inputs of a target.
///
/// # Errors
/// Its file cannot be read, or is something else.
pub fn inputs(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.lines().map(|line| bytes(line).ok_or(format!("{}: {line}", path.display()))).collect()
}

fn bytes(line: &str) -> Option<Vec<u8>> {
    let digits = line.as_bytes().chunks(2);
    digits.map(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()).collect()
}
