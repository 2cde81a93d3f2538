//! A plain HTTP client for what our processes show.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks for a path of an address such as `127.0.0.1:9090`.
pub async fn get(address: &str, path: &str, accept: &str) -> Answer {
    ask(
        address,
        &format!("GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n"),
    )
    .await
}

/// Puts a body.
pub async fn put(address: &str, path: &str, body: &str) -> Answer {
    let length = body.len();
    let head =
        format!("PUT {path} HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: {length}");
    ask(address, &format!("{head}\r\n\r\n{body}")).await
}

async fn ask(address: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Answer {
        status: status.expect("a status"),
        body: body.to_owned(),
    }
}
