//! The way out, against servers of our own on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use conductor_modelproxy::Listener;
use conductor_modelproxy::egress::{AllowList, Egress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

/// A server that answers every line with `echo: ` and it.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    let said = [b"echo: ", &buffer[..n]].concat();
                    stream.write_all(&said).await.unwrap();
                }
            });
        }
    });
    port
}

struct Out {
    egress: Egress,
    dir: tempfile::TempDir,
}

impl Out {
    fn allowing(entries: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::unix(dir.path(), "egress.sock").unwrap();
        let egress = Egress::start(vec![listener], AllowList::new(entries).unwrap());
        Self { egress, dir }
    }

    async fn ask(&self, head: &str) -> (UnixStream, String) {
        let mut stream = UnixStream::connect(self.dir.path().join("egress.sock"))
            .await
            .unwrap();
        stream
            .write_all(format!("{head}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut said = Vec::new();
        while !said.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut buffer = [0; 1024];
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..n]);
        }
        (stream, String::from_utf8(said).unwrap())
    }

    async fn status(&self, head: &str) -> String {
        let (_, said) = self.ask(head).await;
        said.split(' ').nth(1).unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_tunnel_leads_where_it_is_allowed() {
    let port = echo().await;
    let out = Out::allowing(&[format!("127.0.0.1:{port}")]);
    let (mut stream, said) = out.ask(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1")).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    stream.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 11];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"echo: hello");
    drop(out.egress);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "the tunnel ends with the attempt");
}

#[tokio::test]
async fn nothing_else_is_reached() {
    let port = echo().await;
    let out = Out::allowing(&[
        "example.org".to_owned(),
        format!("*.localhost:{port}"),
        format!("ip6-localhost:{port}"),
    ]);
    assert_eq!(
        out.status(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1"))
            .await,
        "403"
    );
    assert_eq!(out.status("CONNECT example.org:22 HTTP/1.1").await, "403");
    assert_eq!(
        out.status(&format!("GET http://127.0.0.1:{port}/ HTTP/1.1"))
            .await,
        "403"
    );
    assert_eq!(
        out.status("GET / HTTP/1.1\r\nhost: example.org").await,
        "400"
    );
    assert_eq!(out.status("GET https://example.org/ HTTP/1.1").await, "400");
    // A name that means this machine is no way to it, unless it cannot be resolved at all.
    let status = out
        .status(&format!("CONNECT ip6-localhost:{port} HTTP/1.1"))
        .await;
    assert!(["403", "502"].contains(&status.as_str()), "{status}");
}

#[tokio::test]
async fn plain_http_is_passed_on_to_the_host_it_names() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 4096];
        let n = stream.read(&mut seen).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\nx-here: 1\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(seen[..n].to_vec())
            .unwrap()
            .to_lowercase()
    });
    let out = Out::allowing(&[format!("127.0.0.1:{port}")]);
    let head =
        format!("GET http://127.0.0.1:{port}/a?b HTTP/1.1\r\nhost: evil\r\nproxy-authorization: x");
    let (_, said) = out.ask(&head).await;
    assert!(
        said.starts_with("HTTP/1.1 204") && said.contains("x-here: 1"),
        "{said}"
    );
    let seen = server.await.unwrap();
    assert!(
        seen.starts_with("get /a?b http/1.1") && seen.contains(&format!("host: 127.0.0.1:{port}")),
        "{seen}"
    );
    assert!(!seen.contains("proxy-authorization"), "{seen}");
}
