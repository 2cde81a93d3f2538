//! Who may do what on the servers of a cell: accounts, users, credentials.
//!
//! The NATS servers enforce the topology (design section 2), in operator mode: every right is in
//! a signed JWT, so that an agent is added or refused at run time without a change of any server's
//! configuration. Reading order: [`rights`] (the subjects) → [`claims`] (the JWTs that say so) →
//! [`jwt`] (how they are signed) → [`keyring`] (where the keys are) → [`ledger`] (who has some).
//!
//! # Invariants
//! - **Each agent has an account of its own.** Subjects of one account are nothing in another, so
//!   that there is no path from agent to agent, not even by the reply subject of an allowed
//!   publish: in an account that agents share, the answers of the server reach whatever inbox one
//!   of them names (tests/e2e/attack).
//! - An agent's account imports single services of the cell's account, each by a token that the
//!   cell's account signed for it and that names the agent: another's subjects it cannot even
//!   import.
//! - Services have no right to make, change, purge or delete a stream; only the administrator's
//!   credentials have, which provisioning alone uses.

pub mod claims;
pub mod creds;
pub mod issuer;
pub mod jwt;
pub mod keyring;
pub mod ledger;
pub mod rights;
mod standing;

pub use creds::Credentials;
pub use jwt::AccessError;
pub use keyring::Keyring;
