//! A little HTTP server that serves lists of servers, with ETags.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use berth_haproxy::config::etag;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// What is served: for each path the status and the text.
type Pages = Arc<Mutex<HashMap<String, (u16, String)>>>;

/// The running server.
pub(crate) struct Lists {
    pub(crate) url: String,
    pages: Pages,
    answered: Arc<Mutex<Vec<u16>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Lists {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/haproxy/edge", listener.local_addr().unwrap());
        let (pages, answered) = (Pages::default(), Arc::<Mutex<Vec<u16>>>::default());
        let (served, log) = (Arc::clone(&pages), Arc::clone(&answered));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let status = answer(stream, &served).await;
                log.lock().unwrap_or_else(PoisonError::into_inner).push(status);
            }
        });
        Self { url, pages, answered, task }
    }

    pub(crate) fn set(&self, backend: &str, status: u16, text: &str) {
        let page = (status, text.to_owned());
        self.pages.lock().unwrap().insert(format!("/haproxy/edge/{backend}"), page);
    }

    /// The statuses of the answers since the last call.
    pub(crate) fn answered(&self) -> Vec<u16> {
        std::mem::take(&mut self.answered.lock().unwrap())
    }

    /// Nothing listens any more.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        (&mut self.task).await.ok();
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: TcpStream, pages: &Pages) -> u16 {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "{head}");
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let page = pages.lock().unwrap().get(&path).cloned();
    let (status, text) = page.unwrap_or((404, "no such backend".to_owned()));
    let tag = etag(&text);
    let status = if status == 200 && head.contains(&format!("If-None-Match: {tag}")) { 304 } else { status };
    let body = if status == 304 { "" } else { &text };
    let answer = format!(
        "HTTP/1.1 {status} x\r\nETag: {tag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.ok();
    status
}
