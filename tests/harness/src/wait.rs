//! Waiting for what cannot be waited for: it is looked at, again and again.

use std::time::{Duration, Instant};

use crate::PATIENCE;

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Looks until something is so; until then `look` says what is still missing.
pub async fn until<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) => assert!(Instant::now() < deadline, "waited in vain: {missing}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The same for what has to be asked for.
pub async fn until_asked<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(missing) => assert!(Instant::now() < deadline, "waited in vain: {missing}"),
        }
        tokio::time::sleep(POLL).await;
    }
}
