//! What programs say by files: `.conductor/progress.jsonl`, to which they append, and
//! `.conductor/result.json`, which they put there by a rename.
//!
//! It is for programs that have nothing else, and it is not trusted: everything has a limit, no
//! link is followed, and a line that cannot be read is counted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use conductor_protocol::limits::MESSAGE_BYTES_MAX;
use serde::Deserialize;
use tokio::time::Instant;

use crate::beneath::{Links, open_file, read_capped};

/// How often the progress is looked at.
pub const POLL_EVERY: Duration = Duration::from_millis(250);
/// Shortest time between two words of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Most bytes that are read at a time; of what is further behind only the end counts.
const READ_BYTES_MAX: u64 = 64 * 1024;
/// Longest line of progress.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// Largest result.
pub const RESULT_FILE_BYTES_MAX: u64 = 1 << 20;

const PROGRESS: &str = ".conductor/progress.jsonl";
const RESULT: &str = ".conductor/result.json";

/// How far a program is, in its own words.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    #[serde(default)]
    pub percent: Option<f32>,
    /// For people.
    #[serde(default)]
    pub message: Option<String>,
}

impl Progress {
    /// What a line says, made fit for the log.
    fn of(line: &[u8]) -> Option<Self> {
        // serde would take an array for one, too.
        let line = line.trim_ascii();
        let said: Self = line
            .starts_with(b"{")
            .then(|| serde_json::from_slice(line).ok())??;
        Self::new(said.percent, said.message)
    }

    /// What a program says, made fit for the log; `None` where that is nothing.
    pub(crate) fn new(percent: Option<f32>, message: Option<String>) -> Option<Self> {
        let percent = percent.filter(|p| p.is_finite());
        let percent = percent.map(|p| p.clamp(0.0, 100.0));
        let message = message.filter(|m| !m.trim().is_empty());
        let message = message.map(|m| cut_end(m, MESSAGE_BYTES_MAX));
        (percent.is_some() || message.is_some()).then_some(Self { percent, message })
    }
}

/// Lines of progress as they come in. The newest counts, and not too often.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// A line that is too long is left out to its end.
    is_skipping: bool,
    newest: Option<Progress>,
    told: Option<Instant>,
    /// Lines that could not be read.
    pub bad: u64,
}

impl Lines {
    /// Takes in what was appended.
    pub fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, is_whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            if self.partial.len() + text.len() > LINE_BYTES_MAX {
                self.is_skipping = true;
                self.partial.clear();
            } else if !self.is_skipping {
                self.partial.extend_from_slice(text);
            }
            if is_whole {
                self.line();
            }
        }
    }

    fn line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let is_skipped = std::mem::take(&mut self.is_skipping);
        if !is_skipped && line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match Progress::of(&line).filter(|_| !is_skipped) {
            Some(progress) => self.newest = Some(progress),
            None => self.bad += 1,
        }
    }

    /// Takes in what it says in another way.
    fn say(&mut self, progress: Progress) {
        self.newest = Some(progress);
    }

    /// Leaves out what comes before the next line.
    fn skip(&mut self) {
        self.partial.clear();
        self.is_skipping = true;
    }

    /// What is to be told now, if anything is and enough time has passed.
    pub fn due(&mut self, now: Instant) -> Option<Progress> {
        if self.told.is_some_and(|told| now < told + PROGRESS_EVERY) {
            return None;
        }
        let newest = self.newest.take()?;
        self.told = Some(now);
        Some(newest)
    }

    /// The last word, which is told in any case.
    pub fn last(&mut self) -> Option<Progress> {
        self.newest.take()
    }
}

/// The progress of a program, watched.
#[derive(Debug, Default)]
pub struct Watched {
    read: u64,
    lines: Lines,
}

impl Watched {
    /// Looks for more; what is to be told now.
    pub fn poll(&mut self, workspace: &Path, now: Instant) -> Option<Progress> {
        self.read_on(workspace);
        self.lines.due(now)
    }

    /// Takes in what it says in another way than by its file; of both the newest counts.
    pub fn say(&mut self, progress: Progress) {
        self.lines.say(progress);
    }

    /// Looks once more after the end; the last word, and how many lines could not be read.
    pub fn finish(&mut self, workspace: &Path) -> (Option<Progress>, u64) {
        self.read_on(workspace);
        // The last line may have no end.
        self.lines.push(b"\n");
        (self.lines.last(), std::mem::take(&mut self.lines.bad))
    }

    fn read_on(&mut self, workspace: &Path) {
        // What cannot be read now may be there the next time.
        if let Ok(file) = open_file(workspace, Path::new(PROGRESS), Links::None) {
            let _ = self.read_from(file);
        }
    }

    fn read_from(&mut self, mut file: File) -> io::Result<()> {
        let size = file.metadata()?.len();
        if size < self.read {
            // It was begun anew, which is not what was agreed on.
            self.read = 0;
        }
        if size - self.read > READ_BYTES_MAX {
            self.read = size - READ_BYTES_MAX;
            self.lines.skip();
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        self.read += bytes.len() as u64;
        self.lines.push(&bytes);
        Ok(())
    }
}

/// The result that a program left as a file, if it left one.
pub fn result(workspace: &Path) -> Result<Option<String>, String> {
    let file = match open_file(workspace, Path::new(RESULT), Links::None) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{RESULT} cannot be read: {e}")),
    };
    let read = read_capped(file, RESULT_FILE_BYTES_MAX);
    let (bytes, is_more) = read.map_err(|e| format!("{RESULT} cannot be read: {e}"))?;
    if is_more {
        return Err(format!(
            "{RESULT} is larger than {RESULT_FILE_BYTES_MAX} bytes"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{RESULT} is not UTF-8"))?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text)
        .map_err(|e| format!("{RESULT} is not JSON: {e}"))?;
    Ok(Some(text.trim().to_owned()))
}

/// A text cut at its end, the cut marked.
pub(crate) fn cut_end(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max.saturating_sub('…'.len_utf8()))
            .rev()
            .find(|i| text.is_char_boundary(*i));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// A text of which the end is kept, the cut marked.
pub(crate) fn cut_beginning(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let from = text.len() - max.saturating_sub('…'.len_utf8());
    let from = (from..=text.len()).find(|i| text.is_char_boundary(*i));
    format!(
        "…{}",
        text.get(from.unwrap_or(text.len())..).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn said(message: &str) -> Progress {
        Progress {
            percent: None,
            message: Some(message.to_owned()),
        }
    }

    #[test]
    fn a_line_says_how_far_it_is_or_is_counted() {
        let mut lines = Lines::default();
        lines.push(b"{\"percent\":50,\"message\":\"half\",\"more\":1}\n");
        let half = Progress {
            percent: Some(50.0),
            message: Some("half".to_owned()),
        };
        assert_eq!(lines.last(), Some(half));
        lines.push(b"{\"percent\":1e9}\n");
        assert_eq!(lines.last().unwrap().percent, Some(100.0));
        let bad: [&[u8]; 5] = [b"{}", b"nonsense", b"[1]", b"{\"percent\":\"x\"}", b"\xff"];
        for line in bad {
            lines.push(line);
            lines.push(b"\n");
        }
        lines.push(b"\n \n");
        assert_eq!(
            (lines.last(), lines.bad),
            (None, 5),
            "empty lines are nothing"
        );
        lines.push(&[b'x'; 3 * LINE_BYTES_MAX]);
        lines.push(b"\n{\"message\":\"after\"}\n");
        assert_eq!((lines.last(), lines.bad), (Some(said("after")), 6));
    }

    #[test]
    fn the_newest_is_told_and_not_too_often() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        lines.push(b"{\"message\":\"a\"}\n");
        assert_eq!(lines.due(start), Some(said("a")));
        lines.push(b"{\"message\":\"b\"}\n{\"message\":\"c\"}\n");
        assert_eq!(lines.due(start + Duration::from_millis(1_999)), None);
        assert_eq!(lines.due(start + Duration::from_secs(2)), Some(said("c")));
        assert_eq!(lines.due(start + Duration::from_secs(9)), None);
    }

    #[test]
    fn a_file_that_grows_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let (ws, now) = (dir.path(), Instant::now());
        let mut watched = Watched::default();
        assert_eq!(watched.poll(ws, now), None, "nothing is there");
        fs::create_dir(ws.join(".conductor")).unwrap();
        let file = ws.join(PROGRESS);
        fs::write(&file, "{\"message\":\"a\"}\n{\"mess").unwrap();
        assert_eq!(watched.poll(ws, now), Some(said("a")));
        fs::write(&file, "{\"message\":\"a\"}\n{\"message\":\"b\"}").unwrap();
        assert_eq!(watched.finish(ws), (Some(said("b")), 0));
        // Far behind, only its end counts.
        let mut much = "{\"message\":\"old\"}\n".repeat(100_000);
        much += "{\"message\":\"new\"}\n";
        fs::write(&file, much).unwrap();
        let mut watched = Watched::default();
        assert_eq!(watched.poll(ws, now), Some(said("new")));
    }

    #[test]
    fn what_is_said_in_another_way_counts_as_often() {
        let dir = tempfile::tempdir().unwrap();
        let (ws, start) = (dir.path(), Instant::now());
        let mut watched = Watched::default();
        watched.say(said("a"));
        assert_eq!(watched.poll(ws, start), Some(said("a")));
        watched.say(said("b"));
        watched.say(said("c"));
        assert_eq!(watched.poll(ws, start + Duration::from_secs(1)), None);
        assert_eq!(
            watched.poll(ws, start + Duration::from_secs(2)),
            Some(said("c"))
        );
        watched.say(said("last"));
        assert_eq!(watched.finish(ws), (Some(said("last")), 0));
    }

    #[test]
    fn a_result_is_json_and_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let ws = dir.path();
        assert_eq!(result(ws), Ok(None));
        fs::create_dir(ws.join(".conductor")).unwrap();
        let file = ws.join(RESULT);
        fs::write(&file, "{\"ok\": true}\n").unwrap();
        assert_eq!(result(ws), Ok(Some("{\"ok\": true}".to_owned())));
        for (text, problem) in [("{", "is not JSON"), ("\"x", "is not JSON")] {
            fs::write(&file, text).unwrap();
            assert!(result(ws).unwrap_err().contains(problem));
        }
        fs::write(&file, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(result(ws).unwrap_err().contains("larger than 1048576"));
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        assert!(result(ws).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn texts_are_cut_at_either_end() {
        assert_eq!(cut_end("abc".to_owned(), 3), "abc");
        assert_eq!(cut_beginning("abc", 3), "abc");
        let text = "ä".repeat(100);
        let (end, beginning) = (cut_end(text.clone(), 21), cut_beginning(&text, 21));
        assert!(
            end.len() <= 21 && end.ends_with('…') && end.starts_with('ä'),
            "{end}"
        );
        assert!(
            beginning.len() <= 21 && beginning.starts_with('…'),
            "{beginning}"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut lines = Lines::default();
            for chunk in &chunks {
                lines.push(chunk);
            }
            let _ = lines.last();
            prop_assert!(lines.partial.len() <= LINE_BYTES_MAX);
        }
    }
}
