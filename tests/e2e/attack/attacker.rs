//! Somebody who has credentials and speaks NATS by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use conductor_access::Credentials;
use serde_json::{Value, json};

/// What came of one attempt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Came {
    /// What the server refused, in its words.
    pub(super) refusals: Vec<String>,
    /// Messages that arrived: subject and body.
    pub(super) messages: Vec<(String, String)>,
    /// The server closed the connection.
    pub(super) is_closed: bool,
}

/// A connection with somebody's credentials.
#[derive(Debug)]
pub(super) struct Attacker {
    stream: BufReader<TcpStream>,
}

impl Attacker {
    /// Connects; the server's refusal where it does not let us in.
    pub(super) fn connect(url: &str, creds: &Credentials) -> Result<Self, String> {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut attacker = Self {
            stream: BufReader::new(stream),
        };
        let info = attacker.line().ok_or("no greeting")?;
        let info: Value = serde_json::from_str(info.trim_start_matches("INFO ")).unwrap();
        let sig = creds
            .sign(info["nonce"].as_str().unwrap().as_bytes())
            .unwrap();
        let connect = json!({
            "verbose": false, "headers": true, "jwt": creds.jwt, "sig": sig,
            "no_responders": true, "protocol": 1,
        });
        attacker.send(format!("CONNECT {connect}\r\n").as_bytes());
        let came = attacker.settle();
        if came.is_closed || !came.refusals.is_empty() {
            return Err(came.refusals.join(", "));
        }
        Ok(attacker)
    }

    /// Publishes.
    pub(super) fn publish(&mut self, subject: &str, reply: Option<&str>, body: &[u8]) -> Came {
        self.put(subject, reply, body);
        self.settle()
    }

    /// Publishes without looking at what comes.
    pub(super) fn put(&mut self, subject: &str, reply: Option<&str>, body: &[u8]) {
        let reply = reply.map_or_else(String::new, |r| format!("{r} "));
        let mut said = format!("PUB {subject} {reply}{}\r\n", body.len()).into_bytes();
        said.extend_from_slice(body);
        said.extend_from_slice(b"\r\n");
        self.send(&said);
    }

    /// Publishes with a header, without looking at what comes.
    pub(super) fn put_with(&mut self, subject: &str, (name, value): (&str, &str), body: &[u8]) {
        let head = format!("NATS/1.0\r\n{name}: {value}\r\n\r\n");
        let total = head.len() + body.len();
        let said = format!("HPUB {subject} {} {total}\r\n{head}", head.len());
        self.send(&[said.as_bytes(), body, b"\r\n"].concat());
    }

    /// Subscribes.
    pub(super) fn subscribe(&mut self, subject: &str, id: u32) -> Came {
        self.send(format!("SUB {subject} {id}\r\n").as_bytes());
        self.settle()
    }

    /// Everything the server has to say to what was sent: it answers in order.
    pub(super) fn settle(&mut self) -> Came {
        self.send(b"PING\r\n");
        let mut came = Came::default();
        loop {
            let Some(line) = self.line() else {
                came.is_closed = true;
                return came;
            };
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["PONG"] => return came,
                ["PING"] => self.send(b"PONG\r\n"),
                ["-ERR", ..] => came.refusals.push(line),
                ["MSG" | "HMSG", subject, .., size] => {
                    let subject = (*subject).to_owned();
                    let mut body = vec![0; size.parse::<usize>().unwrap() + 2];
                    self.stream.read_exact(&mut body).unwrap();
                    let body = String::from_utf8_lossy(&body).trim_end().to_owned();
                    came.messages.push((subject, body));
                }
                _ => {}
            }
        }
    }

    /// Waits until a message arrives, or the time is over.
    pub(super) fn hear(&mut self, at_most: Duration) -> Came {
        let deadline = std::time::Instant::now() + at_most;
        loop {
            let came = self.settle();
            if came != Came::default() || std::time::Instant::now() > deadline {
                return came;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(n) if n > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // One that was closed says so when it is read.
        let _ = self.stream.get_mut().write_all(bytes);
    }
}
