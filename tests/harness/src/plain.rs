//! A NATS client in a page, written from the protocol alone: what any language has, and
//! nothing of Conductor.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::PATIENCE;

/// A connection that speaks the NATS protocol by hand.
#[derive(Debug)]
pub struct PlainClient {
    stream: BufReader<TcpStream>,
}

/// A message that came in.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// Where an answer is hoped for.
    pub reply: Option<String>,
    /// What it says.
    pub body: Vec<u8>,
}

impl Message {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

impl PlainClient {
    /// Connects.
    pub fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Self {
            stream: BufReader::new(stream),
        };
        client.send(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n");
        client.flush();
        client
    }

    /// Publishes without waiting, as `nats pub` does.
    pub fn publish(&mut self, subject: &str, body: &[u8]) {
        self.send(format!("PUB {subject} {}\r\n", body.len()).as_bytes());
        self.send(body);
        self.send(b"\r\n");
    }

    /// Publishes with a reply subject.
    pub fn request(&mut self, subject: &str, reply: &str, body: &[u8]) {
        self.send(format!("PUB {subject} {reply} {}\r\n", body.len()).as_bytes());
        self.send(body);
        self.send(b"\r\n");
    }

    /// Publishes with headers.
    pub fn publish_with(&mut self, subject: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = "NATS/1.0\r\n".to_owned();
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let total = head.len() + body.len();
        self.send(format!("HPUB {subject} {} {total}\r\n{head}", head.len()).as_bytes());
        self.send(body);
        self.send(b"\r\n");
    }

    /// Wants what is published on a subject from now on.
    pub fn subscribe(&mut self, subject: &str) {
        self.send(format!("SUB {subject} 1\r\n").as_bytes());
        self.flush();
    }

    /// Waits until the server has taken everything sent so far.
    pub fn flush(&mut self) {
        self.send(b"PING\r\n");
        loop {
            let line = self.line();
            match line.as_str() {
                "PONG" => return,
                "PING" => self.send(b"PONG\r\n"),
                line if line.starts_with("INFO") || line == "+OK" => {}
                line => panic!("the server says {line}"),
            }
        }
    }

    /// Waits for the next message.
    pub fn receive(&mut self) -> Message {
        loop {
            let line = self.line();
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["PING"] => self.send(b"PONG\r\n"),
                ["MSG", subject, _, rest @ .., size] => {
                    let size: usize = size.parse().expect("a size");
                    let mut body = vec![0; size + 2];
                    self.stream.read_exact(&mut body).expect("the body");
                    body.truncate(size);
                    return Message {
                        subject: (*subject).to_owned(),
                        reply: rest.first().map(|r| (*r).to_owned()),
                        body,
                    };
                }
                ["INFO", ..] | ["PONG" | "+OK"] => {}
                _ => panic!("the server says {line}"),
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self
            .stream
            .read_line(&mut line)
            .expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        line.trim_end().to_owned()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream
            .get_mut()
            .write_all(bytes)
            .expect("the server reads");
    }
}

/// The body of a page, or what went wrong.
pub fn http_get(base: &str, path: &str) -> std::io::Result<String> {
    let host = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    Ok(body.unwrap_or_default())
}
