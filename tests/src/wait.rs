//! Waiting for a condition.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);

/// What a look at a condition gave: the value that was waited for, or the state that was seen instead.
pub type Seen<T> = Result<T, String>;

/// Looks again and again until the condition gives a value.
///
/// # Errors
/// After `timeout`: names what was waited for and the state that was last seen.
pub async fn eventually<T>(what: impl Display, timeout: Duration, mut look: impl AsyncFnMut() -> Seen<T>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last = "nothing yet: the first look did not return".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A look that hangs must not hang the test.
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen,
            Err(_) => bail!("{what}: not within {timeout:?} (the last look hung); last seen: {last}"),
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {timeout:?}; last seen: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_value_or_what_was_seen_last() {
        let mut looks = 0;
        let value = eventually("three", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks}")) }
        });
        assert_eq!(value.await.unwrap(), 3);
        let error = eventually::<()>("a miracle", Duration::from_millis(120), async || Err("rain".to_owned())).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("a miracle") && error.contains("rain"), "{error}");
        let hung = eventually::<()>("it", Duration::from_millis(50), async || std::future::pending().await).await;
        assert!(hung.unwrap_err().to_string().contains("hung"));
    }
}
