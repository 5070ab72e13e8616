//! Counts code: lines of Rust that are neither empty nor comment nor test, and `unsafe` blocks among them.

use std::fs;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What a crate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Lines.
    pub lines: u32,
    /// `unsafe` blocks.
    pub unsafe_blocks: u32,
}

impl AddAssign for Code {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.unsafe_blocks += other.unsafe_blocks;
    }
}

/// Counts the file `root` (`lib.rs` or `main.rs`) and all modules below it that are not for tests.
pub fn count(root: &Path) -> Result<Code> {
    let mut total = Code::default();
    let mut files = vec![root.to_owned()];
    while let Some(file) = files.pop() {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let text = without_tests(&without_words(&text));
        total += of(&text);
        for name in modules(&text) {
            files.push(module_file(&file, name)?);
        }
    }
    Ok(total)
}

/// Counts what is left of a source.
fn of(text: &str) -> Code {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).map(|_| 1).sum();
    let words = text.match_indices("unsafe").filter(|(at, word)| {
        let (before, after) = (&text[..*at], &text[at + word.len()..]);
        !before.ends_with(is_name) && after.trim_start().starts_with('{')
    });
    Code { lines, unsafe_blocks: words.map(|_| 1).sum() }
}

/// The modules that are in files of their own: `mod NAME;`.
fn modules(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|line| line.trim().strip_suffix(';'));
    lines
        .filter_map(|line| {
            line.strip_prefix("mod ").or_else(|| line.split_once(" mod ").map(|(_, name)| name))
        })
        .collect()
}

/// Where the module `name` of `parent` is.
fn module_file(parent: &Path, name: &str) -> Result<PathBuf> {
    let folder = match parent.file_name().and_then(|name| name.to_str()) {
        Some("lib.rs" | "main.rs" | "mod.rs") => parent.parent().unwrap_or(parent).to_owned(),
        _ => parent.with_extension(""),
    };
    let places = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    let found = places.into_iter().find(|place| place.exists());
    found.with_context(|| format!("the module {name} of {} is nowhere", parent.display()))
}

/// The source with spaces in place of comments and of what is in quotes.
fn without_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_length(rest),
            '"' => quoted_length(rest),
            'r' if !out.ends_with(is_name) => raw_length(rest).unwrap_or(1),
            '\'' => letter_length(rest),
            _ => letter.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        if token.len() > letter.len_utf8() {
            // A string is code, wherever it has lines; a comment is none.
            let blank = if letter == '/' { ' ' } else { '_' };
            out.extend(token.chars().map(|letter| if letter == '\n' { '\n' } else { blank }));
        } else {
            out.push_str(token);
        }
        rest = behind;
    }
    out
}

/// Comments of this kind may lie in one another.
fn comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return at + 1,
            '\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Of `r"…"`, `r#"…"#` and so on; nothing else begins so.
fn raw_length(text: &str) -> Option<usize> {
    let hashes = text.get(1..)?.bytes().take_while(|&byte| byte == b'#').count();
    let begin = 1 + hashes;
    text.get(begin..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text.get(begin + 1..)?.find(&end).map_or(text.len(), |at| begin + 1 + at + end.len());
    Some(length)
}

/// Of a letter in quotes; of a lifetime, the quote alone.
fn letter_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), Some((at, _))) => text[at + 1..].find('\'').map_or(1, |end| at + 1 + end + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The source, words taken out, without the items that are for tests alone, as their attribute says.
fn without_tests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(") {
        let (before, from) = rest.split_at(at);
        let end = from.find(']').map_or(from.len(), |end| end + 1);
        out.push_str(before);
        let (condition, behind) = from.split_at(end);
        let is_for_tests =
            condition.split(|letter| !is_name(letter)).any(|word| word == "test" || word == "fakes");
        if is_for_tests && !condition.contains("not(") {
            rest = &behind[item_length(behind)..];
        } else {
            out.push_str(condition);
            rest = behind;
        }
    }
    out + rest
}

/// How long the item at the start is: to its `;` or its closing brace.
fn item_length(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && letter == '}' {
                    return at + 1;
                }
            }
            ';' | ',' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Code, count, modules, of, without_tests, without_words};

    fn code(text: &str) -> Code {
        of(&without_tests(&without_words(text)))
    }

    #[test]
    fn comments_and_empty_lines_are_no_code() {
        let text = "//! Doc.\n\nfn a() {} // said\n/* one /* in\nanother */ unsafe { } */\n    /// Doc.\nfn b() {}\n";
        assert_eq!(code(text), Code { lines: 2, unsafe_blocks: 0 });
    }

    #[test]
    fn blocks_are_counted_and_nothing_else_that_is_unsafe() {
        let text = "unsafe fn a() {\n unsafe { b() }\n}\nunsafe impl C for D {}\nlet not_unsafe = E {\n};\nunsafe\n{ f() }\n";
        assert_eq!(code(text), Code { lines: 8, unsafe_blocks: 2 });
    }

    #[test]
    fn strings_are_code_and_hide_what_is_in_them() {
        let text = "let a = \"unsafe { // \\\" \\\\\";\nlet b = r#\"\n\"unsafe { }\"\n\"#;\nlet c = ['\"', '\\'', '/'];\nunsafe { d::<'_>('\\u{7f}') }\n";
        assert_eq!(code(text), Code { lines: 6, unsafe_blocks: 1 });
    }

    #[test]
    fn tests_are_left_out() {
        let text = "mod a;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod b;\n#[cfg(any(test, feature = \"fakes\"))]\npub mod fake {\n fn c() {}\n}\n\
                    #[cfg(not(test))]\nfn d() {}\n#[cfg(test)]\nmod tests {\n fn e() { unsafe { f() } }\n}\n";
        assert_eq!(code(text), Code { lines: 3, unsafe_blocks: 0 });
        assert_eq!(modules(&without_tests(&without_words(text))), ["a"]);
    }

    #[test]
    fn our_own_crates_can_be_counted() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let drivers = count(&workspace.join("drivers/src/lib.rs")).unwrap();
        let kernel = count(&workspace.join("kernel/src/lib.rs")).unwrap();
        assert!(drivers.lines > 1000 && kernel.lines > 1000, "{drivers:?} {kernel:?}");
        assert!(kernel.unsafe_blocks > drivers.unsafe_blocks, "{drivers:?} {kernel:?}");
    }
}
