//! A TCP proxy on loopback: a link that can be cut, go silent, be slow, and be mended.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// As if it were not there.
    Open,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Connections stay and new ones are accepted, but nothing arrives. What was sent
    /// meanwhile arrives when the link is mended, as TCP would send it again.
    BlackHole,
    /// Everything arrives so much later, either way.
    Delay(Duration),
}

/// A link to a port on loopback.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and hands every connection on to `target`.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (link, seen) = watch::channel(Link::Open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, seen.clone()));
            }
        });
        Self {
            port,
            link,
            accepting,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the link, also for connections that are there.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Link::Cut);
        self.accepting.abort();
    }
}

/// Carries one connection until either side ends it or the link is cut.
async fn carry(client: TcpStream, target: u16, mut link: watch::Receiver<Link>) {
    if *link.borrow() == Link::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    // A link adds no delay of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (link.clone(), link.clone());
    tokio::select! {
        () = pump(from_client, to_server, there) => {}
        () = pump(from_server, to_client, back) => {}
        _ = link.wait_for(|l| *l == Link::Cut) => {}
    }
}

/// Carries bytes one way.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
) {
    let (sender, mut arrived) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let reading = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = from.read(&mut buffer).await {
            let chunk = buffer.get(..n).unwrap_or_default().to_vec();
            if n == 0 || sender.send((Instant::now(), chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = arrived.recv().await {
            if pass(&mut link, at).await.is_err() || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

/// Waits until what came in at `at` may arrive.
async fn pass(link: &mut watch::Receiver<Link>, at: Instant) -> Result<(), ()> {
    loop {
        let now = *link.borrow_and_update();
        match now {
            Link::Open => return Ok(()),
            Link::Cut => return Err(()),
            Link::BlackHole => link.changed().await.map_err(drop)?,
            Link::Delay(delay) => tokio::select! {
                () = tokio::time::sleep_until(at + delay) => return Ok(()),
                changed = link.changed() => changed.map_err(drop)?,
            },
        }
    }
}
