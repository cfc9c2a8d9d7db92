//! Reads the body of a request within its limits.

use crate::connections::HeldBytes;
use axum::body::{Body, Bytes, HttpBody as _};
use std::{pin::pin, time::Duration};

/// The limits of each request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of a body.
    pub max_body_bytes: usize,
    /// Time until the whole body must have arrived.
    pub read_timeout: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        // An update carries the object twice, and etcd stores objects of up to 1.5 MiB; the rest is for the envelope. Larger writes
        // could not be stored.
        let max_body_bytes = 4 << 20;
        // Half of the timeoutSeconds in deploy/, so that the apiserver still waits for the response.
        let read_timeout = Duration::from_secs(5);
        Self { max_body_bytes, read_timeout }
    }
}

/// A body, as far as it has been read.
#[derive(Default)]
pub(crate) struct BodyReader {
    first: Bytes,
    more: Vec<u8>,
    length: usize,
}

impl BodyReader {
    /// Reads the body to its end. Bytes beyond `limit` are read but not kept, because a client that is still sending would
    /// not see the response.
    pub(crate) async fn read_to_end(
        &mut self,
        body: Body,
        limit: usize,
        mut held: Option<&mut HeldBytes>,
    ) -> Result<(), axum::Error> {
        let mut body = pin!(body);
        while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
            let Ok(data) = frame?.into_data() else { continue };
            self.length = self.length.saturating_add(data.len());
            if self.length <= limit {
                if let Some(held) = &mut held {
                    held.hold(data.len()).await;
                }
                self.keep(data);
            }
        }
        Ok(())
    }

    /// Bytes that have arrived, including those that were not kept.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The bytes that were kept.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.into() }
    }

    /// Most bodies arrive in one piece, which is not copied.
    fn keep(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.more.extend_from_slice(&data);
    }
}
