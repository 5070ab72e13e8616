//! The running machine and what it says.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{self, Receiver};

/// A running QEMU; ended when dropped.
pub struct Machine(pub Child);

impl Machine {
    /// Sends `text` to Dom0's session.
    pub fn say(&mut self, text: &str) {
        if let Some(input) = &mut self.0.stdin {
            // When it cannot be written, the machine is gone: the reader of its output finds out.
            let _ = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of `output`, as they come; the channel closes when the machine ends.
pub fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(text).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}
