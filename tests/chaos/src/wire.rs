//! A question to a server in plain NATS, on a connection of its own: what any client in any
//! language would send.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Asks one of several servers, the first that answers.
pub(crate) async fn ask_any(urls: &str, subject: &str, body: &[u8]) -> io::Result<Value> {
    let mut last = io::Error::other("no server");
    for url in urls.split(',') {
        match ask(url, subject, body, Duration::from_secs(3)).await {
            Ok(answer) => return Ok(answer),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Publishes with a reply subject and waits for the answer.
pub(crate) async fn ask(
    url: &str,
    subject: &str,
    body: &[u8],
    at_most: Duration,
) -> io::Result<Value> {
    match tokio::time::timeout(at_most, exchange(url, subject, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn exchange(url: &str, subject: &str, body: &[u8]) -> io::Result<Value> {
    let stream = TcpStream::connect(url.trim_start_matches("nats://")).await?;
    let mut stream = BufReader::new(stream);
    let inbox = format!("_CHAOS.{}", uuid::Uuid::new_v4().simple());
    let mut out =
        b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n".to_vec();
    out.extend(format!("SUB {inbox} 1\r\nPUB {subject} {inbox} {}\r\n", body.len()).bytes());
    out.extend(body);
    out.extend(b"\r\n");
    stream.write_all(&out).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        match words.as_slice() {
            ["PING"] => stream.write_all(b"PONG\r\n").await?,
            ["MSG", .., size] => {
                let size = size.parse().map_err(io::Error::other)?;
                let mut body = vec![0; size];
                stream.read_exact(&mut body).await?;
                return serde_json::from_slice(&body).map_err(io::Error::other);
            }
            // Only a server that knows no one to answer sends headers here.
            ["HMSG" | "-ERR", ..] => return Err(io::Error::other(line.trim_end().to_owned())),
            _ => {}
        }
    }
}
