//! What the server refuses its clients. It says so to the client, and otherwise in its log alone:
//! nothing that it measures counts it.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::server::LOG;

/// So much of the log is read at a look, in bytes; the rest is for the next.
const LOOK_BYTES_MAX: u64 = 1 << 20;
/// So much of what a client named is kept, in characters.
const NAMED_MAX: usize = 256;

/// What was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// To publish on a subject, or with a subject for replies.
    Publish,
    /// To subscribe to a subject.
    Subscribe,
    /// To connect.
    Connect,
    /// More than its account, or anybody, may have.
    Limit,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Subscribe, Self::Connect, Self::Limit];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Connect => "connect",
            Self::Limit => "limit",
        }
    }

    /// The server's words for it.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Publish => &["Publish Violation"],
            Self::Subscribe => &["Subscription Violation"],
            Self::Connect => &[
                "authentication error",
                "Authorization Violation",
                "handshake error",
            ],
            Self::Limit => &["maximum ", "Maximum "],
        }
    }
}

/// One refusal, as far as the server says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Refusal {
    /// What was refused.
    pub kind: Kind,
    /// The account's name; empty where the server knows none.
    pub account: String,
    /// Whom the credentials are of: by its public key, where they are a token.
    pub user: String,
    /// The subject, where it was about one; else the server's words.
    pub about: String,
}

impl Refusal {
    /// Reads a line of the server's log.
    pub fn of_line(line: &str) -> Option<Self> {
        let said = error(line)?;
        let parts = parts(said);
        // What stands in quotes is in the client's own words, its name above all.
        let (at, kind) = parts.iter().enumerate().find_map(|(at, part)| {
            let Part::Plain(text) = part else { return None };
            let has = |kind: &&Kind| kind.words().iter().any(|words| text.contains(words));
            Some((at, *Kind::ALL.iter().find(has)?))
        })?;
        let before = parts.get(..at).unwrap_or_default();
        // The last is the server's own word, once it has let somebody in; before it stands what a
        // client says of itself, if it does.
        let who = before.iter().filter_map(Part::quoted).next_back();
        let who = who.filter(|_| kind != Kind::Connect);
        let (account, user) = who.map_or(("", ""), named);
        let about = subject(parts.get(at..).unwrap_or_default());
        let plain = || match parts.get(at) {
            Some(Part::Plain(text)) => text.trim_start_matches(" - ").trim(),
            _ => "",
        };
        let cut = |text: &str| text.chars().take(NAMED_MAX).collect::<String>();
        Some(Self {
            kind,
            account: cut(account),
            user: cut(user),
            about: cut(about.unwrap_or_else(plain)),
        })
    }
}

/// What a line of errors says behind the server's process id, the date and the time. The level counts
/// in its own place alone: further on there may be words of clients.
fn error(line: &str) -> Option<&str> {
    let mut words = line.splitn(5, ' ');
    let (pid, _date, _time) = (words.next()?, words.next()?, words.next()?);
    let pid = pid.strip_prefix('[')?.strip_suffix(']')?;
    let is_error = words.next() == Some("[ERR]") && pid.bytes().all(|b| b.is_ascii_digit());
    is_error.then(|| words.next())?
}

/// Account and user of `KEY/NAME/jwt:KEY`, or of what there is of it.
fn named(who: &str) -> (&str, &str) {
    let mut parts = who.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (_, Some(name), Some(user)) => (name, user.trim_start_matches("jwt:")),
        (Some(account), Some(user), None) => (account, user),
        _ => ("", who),
    }
}

/// The subject that a refusal is about.
fn subject<'a>(parts: &[Part<'a>]) -> Option<&'a str> {
    parts.windows(2).find_map(|pair| match pair {
        [Part::Plain(before), Part::Quoted(subject)]
            if before.ends_with("Subject ") || before.ends_with("Reply ") =>
        {
            Some(*subject)
        }
        _ => None,
    })
}

/// A piece of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part<'a> {
    /// The server's words.
    Plain(&'a str),
    /// What it puts in quotes; quotes within are escaped.
    Quoted(&'a str),
}

impl<'a> Part<'a> {
    fn quoted(&self) -> Option<&'a str> {
        match self {
            Self::Plain(_) => None,
            Self::Quoted(text) => Some(text),
        }
    }
}

fn parts(line: &str) -> Vec<Part<'_>> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        if is_escaped {
            is_escaped = false;
        } else if byte == b'\\' {
            is_escaped = is_quoted;
        } else if byte == b'"' {
            // Beside a quote no character is cut.
            let text = line.get(begin..at).unwrap_or_default();
            parts.push(if is_quoted {
                Part::Quoted(text)
            } else {
                Part::Plain(text)
            });
            (is_quoted, begin) = (!is_quoted, at + 1);
        }
    }
    parts.push(Part::Plain(line.get(begin..).unwrap_or_default()));
    parts
}

/// Reads what a server refuses, as its log grows.
#[derive(Debug)]
pub struct Refusals {
    path: PathBuf,
    at: u64,
    /// Which file that was: another of the name is read from its beginning.
    file: Option<u64>,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
}

impl Refusals {
    /// Those of the server with its files in `dir`, after what its log holds now.
    pub fn from_now(dir: &Path) -> Self {
        let path = dir.join(LOG);
        let log = path.metadata().ok();
        Self {
            path,
            at: log.as_ref().map_or(0, Metadata::len),
            file: log.map(|log| log.ino()),
            rest: Vec::new(),
        }
    }

    /// What came since the last look. A log that cannot be read has nothing to say.
    pub fn look(&mut self) -> Vec<Refusal> {
        let mut bytes = std::mem::take(&mut self.rest);
        self.read(&mut bytes);
        let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        self.rest = bytes.split_off(end);
        // No line of its own is as long; what is not one must not gather.
        if self.rest.len() as u64 > LOOK_BYTES_MAX {
            self.rest.clear();
        }
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter_map(Refusal::of_line).collect()
    }

    fn read(&mut self, bytes: &mut Vec<u8>) {
        let Ok(mut log) = File::open(&self.path) else {
            return;
        };
        let Ok(found) = log.metadata() else {
            return;
        };
        let is_known = self.file.replace(found.ino()) == Some(found.ino());
        if !is_known || found.len() < self.at {
            self.at = 0;
            bytes.clear();
        }
        let read = log.seek(SeekFrom::Start(self.at));
        let read = read.and_then(|_| log.take(LOOK_BYTES_MAX).read_to_end(bytes));
        self.at += read.unwrap_or(0) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// As nats-server 2.15.1 wrote them.
    const HEAD: &str = r#"[10009] 2026/11/28 07:38:42.013010 [ERR] 127.0.0.1:37322 - cid:42 - "v0.51.0:rust:conductor-cli" - "AAUR5BJSLE36S22UKFQ7BZGXERMDIGLX76C6IOHT62YMOY5G5U2UTRMJ/CELL_local/jwt:UDU6" - "#;

    fn refused(said: &str) -> Option<(Kind, String, String, String)> {
        let r = Refusal::of_line(&format!("{HEAD}{said}"))?;
        Some((r.kind, r.account, r.user, r.about))
    }

    #[test]
    fn a_line_says_who_was_refused_what() {
        let of = |kind, about: &str| Some((kind, "CELL_local".into(), "UDU6".into(), about.into()));
        for (said, kind, about) in [
            (
                r#"Publish Violation - Subject "conductor.local.control""#,
                Kind::Publish,
                "conductor.local.control",
            ),
            (
                r#"Publish Violation - Reply "_INBOX.x""#,
                Kind::Publish,
                "_INBOX.x",
            ),
            (
                r#"Subscription Violation - Subject "a.>", Queue: "q", SID 9"#,
                Kind::Subscribe,
                "a.>",
            ),
            (
                "maximum connections exceeded",
                Kind::Limit,
                "maximum connections exceeded",
            ),
        ] {
            assert_eq!(refused(said), of(kind, about), "{said}");
        }
        let (kind, account, user, about) = refused("authentication error").unwrap();
        assert_eq!(
            (kind, about.as_str()),
            (Kind::Connect, "authentication error")
        );
        assert_eq!(
            (account, user),
            (String::new(), String::new()),
            "nobody vouches for it"
        );
        let (kind, ..) = refused("TLS client handshake error: bad certificate").unwrap();
        assert_eq!(kind, Kind::Connect);
        let unnamed = HEAD.replace(r#""v0.51.0:rust:conductor-cli" - "#, "");
        let unnamed = Refusal::of_line(&format!("{unnamed}Publish Violation - Subject \"s\""));
        assert_eq!(unnamed.unwrap().account, "CELL_local");
        for said in ["Slow Consumer Detected", "Readloop processing time: 12s"] {
            assert_eq!(refused(said), None, "{said}");
        }
        let early =
            "[1] 2026/11/28 07:38:42.013010 [ERR] 10.0.0.7:5 - cid:5 - authentication error";
        let early = Refusal::of_line(early).unwrap();
        assert_eq!((early.kind, early.account.as_str()), (Kind::Connect, ""));
    }

    /// A client chooses its name and its subjects, and must not put words into the server's mouth.
    #[test]
    fn what_a_client_calls_itself_is_no_word_of_the_server() {
        let name = r#"v1:go:x\" - \"A/OTHER/jwt:U\" - Publish Violation - Subject \"innocent"#;
        let at = "[1] 2026/11/28 07:38:42.013010";
        let who = format!(r#"1.2.3.4:5 - cid:1 - "{name}" - "A/OWN/jwt:U1" - "#);
        let line = format!("{at} [ERR] {who}");
        let only = format!("{line}Client parser ERROR");
        assert_eq!(Refusal::of_line(&only), None);
        // Nor is another kind of line one of errors because somebody is called so.
        let said = "[ERR] 1.2.3.4:5 - cid:1 - Publish Violation - Subject s";
        for other in [
            format!("{at} [INF] {said}"),
            format!("{at} [INF] 1.2.3.4:5 - cid:1 - \"v1:go:{said}\" - closed"),
            format!("{at} {said}").replace("[ERR]", "[WRN] [ERR]"),
            said.to_owned(),
            format!("a b {said}"),
        ] {
            assert_eq!(Refusal::of_line(&other), None, "{other}");
        }
        assert!(Refusal::of_line(&format!("{at} {said}")).is_some());
        let both = format!(r#"{line}Subscription Violation - Subject "x\" - Subject \"y", SID 1"#);
        let both = Refusal::of_line(&both).unwrap();
        assert_eq!((both.kind, both.account.as_str()), (Kind::Subscribe, "OWN"));
        assert_eq!(both.about, r#"x\" - Subject \"y"#);
        let long = format!(
            r#"{HEAD}Publish Violation - Subject "{}""#,
            "x".repeat(9_000)
        );
        assert_eq!(Refusal::of_line(&long).unwrap().about.len(), NAMED_MAX);
    }

    #[test]
    fn a_log_is_followed_from_now_on_line_by_line_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG);
        let line = |n: u32| format!("{HEAD}Publish Violation - Subject \"s{n}\"\n");
        std::fs::write(&path, line(0)).unwrap();
        let mut refusals = Refusals::from_now(dir.path());
        let mut look = || -> Vec<String> {
            let found = refusals.look().into_iter();
            found.map(|r| r.about).collect()
        };
        assert_eq!(look(), [] as [String; 0], "that was before");
        let mut log = File::options().append(true).open(&path).unwrap();
        let (whole, half) = (line(1), line(2));
        let (begin, end) = half.split_at(40);
        log.write_all(format!("{whole}{begin}").as_bytes()).unwrap();
        assert_eq!(look(), ["s1"]);
        log.write_all(end.as_bytes()).unwrap();
        assert_eq!(look(), ["s2"]);
        std::fs::write(&path, line(3)).unwrap();
        assert_eq!(look(), ["s3"]);
        // Longer than what was read of the one before, under another name so far.
        let many: String = (0..20_000).map(line).collect();
        let next = dir.path().join("next");
        std::fs::write(&next, &many).unwrap();
        std::fs::rename(&next, &path).unwrap();
        let first = look().len();
        assert!(0 < first && first < 20_000, "{first}");
        let all = first
            + std::iter::repeat_with(look)
                .take(10)
                .map(|f| f.len())
                .sum::<usize>();
        assert_eq!(all, 20_000);
    }
}
