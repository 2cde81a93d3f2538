//! How things end, and what is said to people meanwhile.

use std::io::Write;

/// What goes wrong is told to a person, who reads it and begins anew.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Says something to the person at the terminal.
pub(crate) fn say(text: &str) {
    // Nobody may be listening, and that is all right.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes a result.
pub(crate) fn put(text: &str) {
    // As above.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
