//! JetStream: the log of record, and the streams beside it.
//!
//! One [`Connection`] per process. What it offers is split by room: [`provision`] makes
//! and checks the streams, [`log`] appends and tails, [`locks`] says who may try to
//! lead, [`ears`] let agents hear, [`presence`] carries heartbeats, [`output`] what attempts
//! print, [`artifacts`] the files they leave, [`beside`] what these three have in common,
//! [`snapshots`] saved states, [`positions`] how far readers have come that must not repeat
//! themselves, [`requests`] questions to live replicas, [`accounts`] who may do what, [`figures`]
//! how large all that is.

pub mod accounts;
pub mod artifacts;
mod beside;
mod connection;
mod credentials;
pub mod ears;
pub mod figures;
pub mod locks;
mod log;
pub mod output;
pub mod positions;
pub mod presence;
pub mod provision;
pub mod requests;
mod snapshots;

pub use connection::{Connect, ConnectError, Connection, Tls};
pub use snapshots::ReaderSnapshots;
