//! A machine as the operations see it: it runs a shell script within a time limit.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::{MachineError, Result};

/// How many bytes of each of a command's output streams are kept: the last ones. An answer is a few KiB; 64 KiB bounds what
/// a command that writes without end costs in memory.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// How many bytes of standard error go into an error message. Messages end up in a Server's status, which must stay small.
const MESSAGE_LIMIT: usize = 1024;

/// A machine that runs shell scripts.
pub trait Machine: Send + Sync {
    /// Runs `script` with `sh`, after the shell assignments in `parameters`, and waits for its end. `timeout` covers the whole
    /// call, connecting included. An exit status other than 0 is not an error here.
    ///
    /// The script's standard input is empty, and stays open until this call ends in whatever way: so a script can see that its
    /// client is gone. The script leads its own process group.
    fn exec<'a>(
        &'a self,
        script: &'a str,
        parameters: Option<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Output>>;
}

/// Exit status and output of a finished command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 or more when a signal ended the command.
    pub status: u32,
    /// Name of the signal that ended the command, such as `KILL`.
    pub signal: Option<String>,
    /// The last [`OUTPUT_LIMIT`] bytes of standard output.
    pub stdout: Vec<u8>,
    /// The last [`OUTPUT_LIMIT`] bytes of standard error.
    pub stderr: Vec<u8>,
    /// Whether an output stream was longer than that, so that its beginning is missing.
    pub truncated: bool,
}

impl Output {
    /// Whether the command ended with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0 && self.signal.is_none()
    }

    /// The last part of standard error as text, short enough for an error message.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        let tail = last_part(&String::from_utf8_lossy(&self.stderr));
        if tail.is_empty() { "it wrote nothing to standard error".to_owned() } else { tail }
    }

    /// The output of a command that must succeed; an error if it did not.
    pub fn ok(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        let stderr = self.stderr_tail();
        Err(MachineError::Command { status: self.status, signal: self.signal, stderr })
    }
}

/// The last part of a text, short enough for an error message.
pub(crate) fn last_part(text: &str) -> String {
    let start = text.len().saturating_sub(MESSAGE_LIMIT);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[start..].trim().to_owned()
}

/// Keeps the last [`OUTPUT_LIMIT`] bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Tail {
    pub(crate) fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        // Cut only now and then: cutting moves all kept bytes, which would be slow if done for every packet.
        if self.bytes.len() > 2 * OUTPUT_LIMIT {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if let Some(excess) = self.bytes.len().checked_sub(OUTPUT_LIMIT).filter(|excess| *excess > 0) {
            self.bytes.drain(..excess);
            self.truncated = true;
        }
    }

    /// The kept bytes, and whether earlier ones were dropped.
    pub(crate) fn finish(mut self) -> (Vec<u8>, bool) {
        self.cut();
        (self.bytes, self.truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_bytes_and_is_marked_as_truncated() {
        let mut tail = Tail::default();
        for n in 0..5u8 {
            tail.push(&vec![n; OUTPUT_LIMIT / 2]);
        }
        let (bytes, truncated) = tail.finish();
        assert!(truncated);
        assert_eq!(bytes.len(), OUTPUT_LIMIT);
        assert_eq!((bytes[0], bytes[OUTPUT_LIMIT - 1]), (3, 4));
    }

    #[test]
    fn the_error_of_a_failed_command_contains_its_standard_error() {
        let output = Output { status: 3, stderr: b"first\nno space left\n".to_vec(), ..Output::default() };
        let error = output.ok().unwrap_err();
        assert_eq!(error.to_string(), "the command failed with status 3: first\nno space left");
    }
}
