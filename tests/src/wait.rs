//! Waiting for a condition.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two checks: short compared with anything that tests wait for.
const POLL: Duration = Duration::from_millis(50);

/// The result of one check: the awaited value, or a description of the present state.
pub type CheckResult<T> = Result<T, String>;

/// Repeats the check until it gives a value.
///
/// # Errors
/// After `timeout`; the error names what was awaited and the last state.
pub async fn eventually<T>(
    what: impl Display,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> CheckResult<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last = "nothing yet: the first check did not return".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A check that hangs must not hang the test.
        match tokio::time::timeout(left, check()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => last = state,
            Err(_) => bail!("{what}: not within {timeout:?} (the last check hung); last state: {last}"),
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {timeout:?}; last state: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn eventually_gives_the_value_or_the_last_state() {
        let mut checks = 0;
        let value = eventually("three", Duration::from_secs(5), async || {
            checks += 1;
            if checks == 3 { Ok(checks) } else { Err(format!("{checks}")) }
        });
        assert_eq!(value.await.unwrap(), 3);
        let error = eventually::<()>("a miracle", Duration::from_millis(120), async || Err("rain".to_owned())).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("a miracle") && error.contains("rain"), "{error}");
        let hung = eventually::<()>("it", Duration::from_millis(50), async || std::future::pending().await).await;
        assert!(hung.unwrap_err().to_string().contains("hung"));
    }
}
