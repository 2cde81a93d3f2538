//! Which hosts may be reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The port of an entry that names none.
const PORT_DEFAULT: u16 = 443;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    /// This one.
    Exact(String),
    /// Whatever lies below: ends with this, the dot included.
    Below(String),
}

/// Hosts and ports that may be reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowList(Vec<(Host, u16)>);

impl AllowList {
    /// From entries such as `example.org`, `*.example.org`, `127.0.0.1:8080`.
    pub fn new(entries: &[String]) -> Result<Self, String> {
        let parse = |entry: &String| {
            let wrong = || format!("{entry:?} is no host; write name, *.name or name:port");
            let (name, port) = split_port(entry, PORT_DEFAULT).ok_or_else(wrong)?;
            let name = normal(name);
            let host = match name.strip_prefix('*') {
                Some(suffix) if suffix.len() > 1 && suffix.starts_with('.') => {
                    Host::Below(suffix.to_owned())
                }
                Some(_) => return Err(wrong()),
                None if name.is_empty() => return Err(wrong()),
                None => Host::Exact(name),
            };
            Ok((host, port))
        };
        entries
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it may be reached; if so, whether any address will do: one that is named as it is
    /// may be private, what a name resolves to may not.
    pub fn allows(&self, host: &str, port: u16) -> Option<bool> {
        let host = normal(host);
        let is_it = |(allowed, p): &&(Host, u16)| {
            *p == port
                && match allowed {
                    Host::Exact(name) => *name == host,
                    Host::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                }
        };
        let (entry, _) = self.0.iter().find(is_it)?;
        let is_literal = host.parse::<IpAddr>().is_ok() || host == "localhost";
        Some(matches!(entry, Host::Exact(_)) && is_literal)
    }
}

/// A name as it is compared: small letters, no brackets, no dot at its end.
fn normal(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Host and port of `name`, `name:port`, `[::1]:port`.
pub(super) fn split_port(authority: &str, default: u16) -> Option<(&str, u16)> {
    let end_of_host = authority.rfind(']').map_or(0, |end| end + 1);
    match authority.get(end_of_host..)?.rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(end_of_host + colon);
            let port: u16 = port.get(1..)?.parse().ok()?;
            // A bare IPv6 address has colons of its own.
            let is_bare = host.contains(':') && !host.starts_with('[');
            (port != 0 && !is_bare).then_some((host, port))
        }
        None => Some((authority, default)),
    }
}

/// Whether an address lies in the open network: not on this machine, not in a private or special
/// range, where what answers trusts whoever asks.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        // Carriers' own, IETF's own, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    // 2000::/3 is all that is given out; of it, documentation and tunnels that hide a v4 address.
    let is_global = first & 0xe000 == 0x2000;
    is_global && !(first == 0x2001 && (second == 0xdb8 || second == 0)) && first != 0x2002
}

/// The v4 address that a v6 one stands for: mapped, or of a translating network (NAT64).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = ip.segments();
    let is_nat64 = prefix == [0x64, 0xff9b, 0, 0, 0, 0];
    let v4 = || Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    ip.to_ipv4_mapped().or_else(|| is_nat64.then(v4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
        AllowList::new(&entries).unwrap()
    }

    #[test]
    fn hosts_are_allowed_by_name_and_port() {
        let list = list(&[
            "Example.org",
            "*.pypi.org",
            "plain.net:80",
            "127.0.0.1:8080",
            "localhost:9",
            "[::1]:7",
        ]);
        for (host, port, expected) in [
            ("example.org", 443, Some(false)),
            ("EXAMPLE.ORG.", 443, Some(false)),
            ("example.org", 80, None),
            ("sub.example.org", 443, None),
            ("files.pypi.org", 443, Some(false)),
            ("pypi.org", 443, None),
            ("evilpypi.org", 443, None),
            ("plain.net", 80, Some(false)),
            ("plain.net", 443, None),
            ("127.0.0.1", 8080, Some(true)),
            ("127.0.0.1", 8081, None),
            ("localhost", 9, Some(true)),
            ("[::1]", 7, Some(true)),
            ("", 443, None),
        ] {
            assert_eq!(list.allows(host, port), expected, "{host}:{port}");
        }
        assert_eq!(AllowList::default().allows("example.org", 443), None);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for entry in ["", "*", "*.", "*org", "a:0", "a:x", ":443"] {
            assert!(AllowList::new(&[entry.to_owned()]).is_err(), "{entry}");
        }
    }

    #[test]
    fn private_addresses_are_not_public_however_they_are_written() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001:0:1::",
            "::127.0.0.1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }
}
