//! Ports of loopback that lead to sockets of the agent, for programs that know no unix sockets.
//! Where a sandbox has a network of its own, the reaper, which runs inside, opens them.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

/// The variable that says which: `port=path` for each, a space between.
pub const VARIABLE: &str = "CONDUCTOR_FORWARD";

/// The value of the variable.
pub fn value(ports: &[(u16, PathBuf)]) -> String {
    let each = ports
        .iter()
        .map(|(port, path)| format!("{port}={}", path.display()));
    each.collect::<Vec<_>>().join(" ")
}

/// Opens the ports that the variable names; they stay for as long as this process does.
pub fn open(value: &str) -> Result<(), String> {
    for entry in value.split(' ').filter(|entry| !entry.is_empty()) {
        let parsed = entry
            .split_once('=')
            .and_then(|(port, path)| Some((port.parse::<u16>().ok()?, path)));
        let (port, path) =
            parsed.ok_or_else(|| format!("{VARIABLE}: {entry:?} is not port=path"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = listener.map_err(|e| format!("port {port} of its sandbox: {e}"))?;
        let path = PathBuf::from(path);
        thread::spawn(move || accept(&listener, &path));
    }
    Ok(())
}

fn accept(listener: &TcpListener, path: &Path) {
    loop {
        let Ok((client, _)) = listener.accept() else {
            // Too many are open: some will end.
            thread::sleep(std::time::Duration::from_millis(20));
            continue;
        };
        let path = path.to_owned();
        thread::spawn(move || {
            // Whoever connected sees that nothing comes.
            let _ = join(&client, &path);
        });
    }
}

/// Copies both ways until both are over.
fn join(client: &TcpStream, path: &Path) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = UnixStream::connect(path)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*client, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &server, &mut &*client);
        let _ = client.shutdown(Shutdown::Write);
        // What the client may still say is heard by nobody.
        let _ = client.shutdown(Shutdown::Read);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_port_leads_to_a_socket_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let server = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for stream in server.incoming() {
                let mut stream = stream.unwrap();
                let mut asked = Vec::new();
                stream.read_to_end(&mut asked).unwrap();
                stream
                    .write_all(&[b"heard ".as_slice(), &asked].concat())
                    .unwrap();
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        open(&value(&[(port, path)])).unwrap();
        for word in ["one", "two"] {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(word.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            assert_eq!(said, format!("heard {word}"));
        }
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        assert!(open("x=y").unwrap_err().contains("port=path"));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(open(&format!("{port}=/nowhere")).is_err());
        open("").unwrap();
    }
}
