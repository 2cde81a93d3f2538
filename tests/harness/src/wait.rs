//! Waiting for what cannot be waited for: it is looked at, again and again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::PATIENCE;

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(10);

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// So much of a day must be left for a test of what goes by days.
const LEFT: Duration = Duration::from_secs(2 * 60);

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

/// Waits past midnight UTC where fewer than two minutes are left of the day: for tests of what goes by
/// days, such as budgets. It is the time that the test is about, and nothing is hoped to be done by
/// then.
pub async fn away_from_midnight() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.expect("after 1970").as_secs() % DAY.as_secs();
    let left = DAY.saturating_sub(Duration::from_secs(seconds));
    if left < LEFT {
        tokio::time::sleep(left).await;
    }
}
