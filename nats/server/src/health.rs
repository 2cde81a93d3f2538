//! What a server says of itself on its monitoring port.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a server says of a stream whose files it has and cannot read.
const NOT_RECOVERED: &str = "could not be recovered";

/// Whether a server says that it has files of a stream and cannot read them. Those that are being
/// removed have a name that begins with a dot.
pub(crate) fn is_unreadable(said: &str) -> bool {
    let before = said.split_once(NOT_RECOVERED);
    let stream = before.and_then(|(before, _)| before.trim_end().rsplit_once(' '));
    stream.is_some_and(|(_, stream)| !stream.starts_with('.'))
}

/// Whether it says that all is well.
pub(crate) fn is_well(said: &str) -> bool {
    said.contains("200 OK")
}

/// What the server says of itself: that JetStream and the rest are well, or what is not.
pub(crate) fn health(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_from_what_is_being_removed() {
        let said = |stream: &str| {
            format!(
                "HTTP/1.0 503 Service Unavailable\r\n\r\n{{\"status\":\"unavailable\",\"status_code\":503,\
                 \"error\":\"JetStream stream 'AB \\u003e {stream}' could not be recovered\"}}"
            )
        };
        assert!(is_unreadable(&said("LOG_local")));
        assert!(!is_unreadable(&said(".LOG_local")));
        assert!(!is_unreadable(
            "HTTP/1.0 503 Service Unavailable\r\n\r\n{\"error\":\"not ready\"}"
        ));
        assert!(!is_unreadable("HTTP/1.0 200 OK\r\n\r\n{\"status\":\"ok\"}"));
    }
}
