//! One connection to the runtime API: commands go in, one answer comes out for each.
//!
//! The connection is switched to HAProxy's interactive mode, because only there the end of an answer can be told from a lost
//! connection: the prompt follows. Each command waits for the answer of the one before.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    address::{Address, Socket, Stream},
    error::{CONNECT, HaproxyError, Problem, RefusalKind, tail},
};

/// What a worker prints when it waits for the next command.
const WORKER_PROMPT: &str = "\n> ";
/// What the master prints when it waits for the next command. Before the first one there is no newline.
const MASTER_PROMPT: &str = "master> ";
/// How long the master's prompt may take after an answer. HAProxy 2.6 sometimes forgets the prompt after a long answer that is read
/// slowly. The empty line that ends the worker's answer is there then, and no answer has one before its end.
const PROMPT_LIMIT: Duration = Duration::from_millis(100);
/// An answer is longer than this only when the other side is not HAProxy: 100,000 servers need a third of it.
const ANSWER_LIMIT: usize = 64 << 20;

/// An open connection.
pub(crate) struct Connection<'a> {
    stream: Box<dyn Stream>,
    address: &'a Address,
    socket: Socket,
    time_limit: Duration,
    broken: bool,
    /// The last answer was complete, but no prompt followed it, so nothing can be asked over this connection.
    stuck: bool,
}

impl<'a> Connection<'a> {
    /// Connects, and waits for the first prompt.
    pub(crate) async fn open(
        address: &'a Address,
        socket: Socket,
        time_limit: Duration,
    ) -> Result<Connection<'a>, HaproxyError> {
        let failed = |problem| HaproxyError { address: address.to_string(), command: CONNECT.to_owned(), problem };
        let stream = match timeout(time_limit, address.connect()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(Problem::Unreachable(error))),
            Err(_) => return Err(failed(Problem::TimedOut { after: time_limit, received: tail(&[]) })),
        };
        let mut connection = Connection { stream, address, socket, time_limit, broken: false, stuck: false };
        let first = connection.exchange("prompt", Expect::FirstPrompt).await.map_err(failed)?;
        if !first.is_empty() {
            return Err(failed(Problem::garbled("the prompt of HAProxy's runtime API", &first)));
        }
        Ok(connection)
    }

    /// Sends one command to the process that listens here, and returns the answer without the newlines at its end.
    pub(crate) async fn ask(&mut self, command: &str) -> Result<String, HaproxyError> {
        if self.stuck {
            // If this fails, so would every further attempt.
            (self.stuck, self.broken) = (false, true);
            *self = Self::open(self.address, self.socket, self.time_limit).await?;
        }
        let answer = self.exchange(command, Expect::Answer).await;
        answer.map_err(|problem| self.error(command, problem))
    }

    /// An error about a command on this connection.
    pub(crate) fn error(&self, command: &str, problem: Problem) -> HaproxyError {
        HaproxyError { address: self.address.to_string(), command: command.to_owned(), problem }
    }

    /// Whether no further command can be sent.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    async fn exchange(&mut self, command: &str, expect: Expect) -> Result<String, Problem> {
        if self.broken {
            return Err(Problem::NotSent("the connection had broken before".to_owned()));
        }
        let mut received = Vec::new();
        // Until the answer is complete, the next answer could not be told from the rest of this one.
        self.broken = true;
        let outcome = timeout(self.time_limit, self.send_and_receive(command, expect, &mut received)).await;
        match outcome {
            Ok(Ok(text)) => {
                self.broken = false;
                Ok(text)
            }
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(Problem::TimedOut { after: self.time_limit, received: tail(&received) }),
        }
    }

    async fn send_and_receive(
        &mut self,
        command: &str,
        expect: Expect,
        received: &mut Vec<u8>,
    ) -> Result<String, Problem> {
        let line = format!("{command}\n");
        self.stream.write_all(line.as_bytes()).await.map_err(Problem::Broken)?;
        self.stream.flush().await.map_err(Problem::Broken)?;
        loop {
            received.reserve(16 << 10);
            let read = if self.socket == Socket::Master && expect == Expect::Answer && received.ends_with(b"\n\n") {
                let Ok(read) = timeout(PROMPT_LIMIT, self.stream.read_buf(received)).await else {
                    self.stuck = true;
                    return Ok(answer_text(received));
                };
                read
            } else {
                self.stream.read_buf(received).await
            };
            let ended = match read {
                Ok(0) => true,
                Ok(_) => false,
                // A peer without TLS's goodbye has closed all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => true,
                Err(error) => return Err(Problem::Broken(error)),
            };
            if ended {
                return Err(closed(received));
            }
            if let Some(length) = complete(received, self.socket, expect)? {
                return Ok(answer_text(received.get(..length).unwrap_or_default()));
            }
            if received.len() > ANSWER_LIMIT {
                return Err(Problem::TooLong { limit: ANSWER_LIMIT });
            }
        }
    }
}

fn answer_text(received: &[u8]) -> String {
    String::from_utf8_lossy(received).trim_end_matches('\n').to_owned()
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The prompt that answers the command `prompt`.
    FirstPrompt,
    /// An answer, and then the prompt.
    Answer,
}

/// The length of the answer in what came, once the prompt shows that the answer is complete.
fn complete(received: &[u8], socket: Socket, expect: Expect) -> Result<Option<usize>, Problem> {
    let ends = |prompt: &str| received.strip_suffix(prompt.as_bytes()).map(<[u8]>::len);
    if expect == Expect::FirstPrompt {
        let (own, other, what) = match socket {
            Socket::Worker => (WORKER_PROMPT, MASTER_PROMPT, "a worker's prompt; this is the master's socket"),
            Socket::Master => (MASTER_PROMPT, WORKER_PROMPT, "the master's prompt; this is a worker's socket"),
        };
        if ends(other).is_some() {
            return Err(Problem::garbled(what, &String::from_utf8_lossy(received)));
        }
        return Ok(ends(own));
    }
    let newline = |length: &usize| received.get(..*length).is_some_and(|answer| answer.ends_with(b"\n"));
    Ok(match socket {
        Socket::Worker => ends(WORKER_PROMPT),
        Socket::Master => ends(MASTER_PROMPT).filter(newline),
    })
}

/// The connection was closed without a prompt. The master does so after it has said that a worker has ended.
fn closed(received: &[u8]) -> Problem {
    let text = String::from_utf8_lossy(received);
    match RefusalKind::known(&text) {
        Some(RefusalKind::NoSuchWorker) => Problem::refused(&text),
        _ => Problem::CutOff { received: tail(received) },
    }
}

#[cfg(test)]
mod tests {
    use super::{Expect, complete};
    use crate::address::Socket;

    #[test]
    fn an_answer_is_complete_when_the_prompt_has_come() {
        let worker = |text: &str| complete(text.as_bytes(), Socket::Worker, Expect::Answer).unwrap();
        assert_eq!(worker("No such server.\n\n> "), Some(16));
        assert_eq!(worker("\n> "), Some(0), "silent success");
        assert_eq!(worker("No such server.\n\n>"), None);
        assert_eq!(worker("a,>,b\n"), None);
        let master = |text: &str| complete(text.as_bytes(), Socket::Master, Expect::Answer).unwrap();
        assert_eq!(master("\nmaster> "), Some(1), "silent success");
        assert_eq!(master("2.6.12\n\nmaster> "), Some(8));
        assert_eq!(master("master> "), None, "the end of the answer before");
    }

    #[test]
    fn the_wrong_kind_of_socket_is_told_from_the_prompt() {
        let error = complete(b"master> ", Socket::Worker, Expect::FirstPrompt).unwrap_err();
        assert!(error.to_string().contains("this is the master's socket"), "{error}");
        let error = complete(b"\n> ", Socket::Master, Expect::FirstPrompt).unwrap_err();
        assert!(error.to_string().contains("this is a worker's socket"), "{error}");
    }
}
