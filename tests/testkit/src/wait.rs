//! Waiting for a condition under a deadline.

use std::{
    future::Future,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds.
///
/// # Errors
///
/// When it does not within `limit`; the text names `what` was waited for.
pub async fn wait_until<F, Fut>(limit: Duration, what: &str, mut condition: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    eventually(limit, what, || {
        let holds = condition();
        async move { holds.await.then_some(()) }
    })
    .await
}

/// Waits until `attempt` gives something.
///
/// # Errors
///
/// When it does not within `limit`; the text names `what` was waited for.
pub async fn eventually<T, F, Fut>(limit: Duration, what: &str, mut attempt: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = attempt().await {
            return Ok(value);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "waited {limit:?} in vain for {what}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
