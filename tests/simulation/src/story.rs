//! A record as a line or more that people can read.

use conductor_domain::Record;

use crate::referee::Referee;

/// The lines of a record that the referee has just seen.
pub(crate) fn lines(referee: &Referee, seq: u64, record: &Record, is_repeat: bool) -> Vec<String> {
    let mut lines = referee.tell(seq);
    if lines.is_empty() {
        lines.push(format!("{} bytes", record.payload.len()));
    }
    let subject = record
        .subject
        .split('.')
        .skip(2)
        .collect::<Vec<_>>()
        .join(".");
    let mark = if is_repeat { " (stored again)" } else { "" };
    lines
        .into_iter()
        .map(|line| format!("{seq:>5} {subject}{mark}: {line}"))
        .collect()
}
