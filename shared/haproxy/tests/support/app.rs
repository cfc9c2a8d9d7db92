//! An application: it answers with its name, and `/hold` only when the test lets it.

use std::sync::Arc;

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// A running application.
pub(crate) struct App {
    pub(crate) port: u16,
    held: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    /// Starts one on a free port of loopback.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::new(Semaphore::new(0));
        let release = Arc::clone(&held);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let release = Arc::clone(&release);
                tokio::spawn(async move { answer(stream, name, release).await });
            }
        });
        Self { port, held, task }
    }

    /// Lets one held request go on.
    pub(crate) fn release(&self) {
        self.held.add_permits(1);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: TcpStream, name: &str, release: Arc<Semaphore>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut head).await, Ok(read) if read > 0) {
                return;
            }
        }
        if head.starts_with("GET /hold") {
            release.acquire().await.unwrap().forget();
        }
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}
