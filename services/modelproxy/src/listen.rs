//! Where an attempt's requests arrive: a socket in its own directory, or a port of loopback for
//! programs that know no such sockets.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// Longest path by which a unix socket can be reached.
pub const SOCKET_PATH_MAX: usize = 107;

/// Both directions of a connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// On a socket in a directory.
    Unix(UnixListener),
    /// On a port.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens on a new socket called `name` in `dir`, for the owner of `dir` alone. The path may
    /// be longer than a socket's address: who connects may see the directory elsewhere.
    pub fn unix(dir: &Path, name: &str) -> io::Result<Self> {
        let handle = std::fs::File::open(dir)?;
        let short = Path::new("/proc/self/fd")
            .join(handle.as_raw_fd().to_string())
            .join(name);
        let listener = std::os::unix::net::UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        let path = dir.join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        give_to_owner_of(dir, &path)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?))
    }

    /// Listens on a free port of loopback; says which.
    pub fn tcp() -> io::Result<(Self, u16)> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok((Self::Tcp(TcpListener::from_std(listener)?), port))
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Gives a file to whoever owns the directory, which may be another than the agent, where the agent
/// may do that.
pub fn give_to_owner_of(dir: &Path, path: &Path) -> io::Result<()> {
    let (dir, file) = (std::fs::metadata(dir)?, std::fs::metadata(path)?);
    if (dir.uid(), dir.gid()) == (file.uid(), file.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(dir.uid()), Some(dir.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_socket_may_lie_deeper_than_its_address_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let listener = Listener::unix(&deep, "a.sock").unwrap();
        let mode = std::fs::metadata(deep.join("a.sock")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let handle = std::fs::File::open(&deep).unwrap();
        let path = format!("/proc/self/fd/{}/a.sock", handle.as_raw_fd());
        let (client, server) =
            tokio::join!(tokio::net::UnixStream::connect(path), listener.accept());
        client.unwrap().write_all(b"hi").await.unwrap();
        let mut said = String::new();
        server.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hi");
    }
}
