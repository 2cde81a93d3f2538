//! What stands between an attempt and the world: it reaches its model, and the hosts it may,
//! through sockets of its own, and holds no key.
//!
//! Reading order: [`provider`] and [`policy`] (what may be asked) → [`meter`], [`prices`] and
//! [`budget`] (what it cost, and whether there is more) → [`keys`] and [`upstream`] (the real key,
//! and the way out) → [`server`] (the proxy itself), and what else answers over its socket
//! ([`beside`]). Beside it, [`egress`]: the way to hosts that are allowed by name.
//!
//! # Invariants
//! - A real key goes into a request to its provider and nowhere else: not into logs, answers or
//!   errors.
//! - Nothing is asked of a provider beyond a budget; what is under way when it is reached is let
//!   finish and counts.
//! - A refusal is a 400 or 403, never a 429: that one programs repeat.

pub mod beside;
pub mod budget;
pub mod egress;
pub mod keys;
pub mod listen;
pub mod meter;
pub mod policy;
pub mod prices;
pub mod provider;
pub mod secret;
pub mod server;
pub mod throttle;
pub mod upstream;

pub use beside::Beside;
pub use budget::Limit;
pub use keys::{Key, KeySource};
pub use listen::Listener;
pub use prices::Prices;
pub use provider::Provider;
pub use secret::Secret;
pub use server::{Access, Account, Proxy, Report, Terms};
pub use upstream::Upstream;
