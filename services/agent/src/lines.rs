//! Lines from bytes, bounded: a line that is too long costs itself, never the rest
//! (agent-facts 5.5; lines of 15 MB are reported from the field).

/// Longest line that is handed on, in bytes.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// How much of a line that was too long is kept.
const KEPT: usize = 256;

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// It was too long: its beginning, and how long it was.
    TooLong {
        /// The beginning.
        head: Vec<u8>,
        /// All its bytes.
        bytes: usize,
    },
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    dropped: usize,
}

impl Lines {
    /// Adds bytes; hands every line that is complete to `each`.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Line)) {
        let mut parts = bytes.split(|b| *b == b'\n');
        if let Some(first) = parts.next() {
            self.extend(first);
        }
        for part in parts {
            each(self.take());
            self.extend(part);
        }
    }

    /// The last line, where it had no end.
    pub fn finish(&mut self) -> Option<Line> {
        (!self.line.is_empty() || self.dropped > 0).then(|| self.take())
    }

    fn extend(&mut self, part: &[u8]) {
        if self.dropped > 0 || self.line.len() + part.len() > LINE_BYTES_MAX {
            if self.dropped == 0 {
                self.dropped = self.line.len();
                self.line
                    .extend_from_slice(part.get(..KEPT.min(part.len())).unwrap_or_default());
                self.line.truncate(KEPT);
                self.line.shrink_to_fit();
            }
            self.dropped += part.len();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        match std::mem::take(&mut self.dropped) {
            0 => Line::Whole(line),
            bytes => Line::TooLong { head: line, bytes },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Line> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |l| out.push(l));
        }
        out.extend(lines.finish());
        out
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_alone() {
        let long = vec![b'x'; LINE_BYTES_MAX + 5];
        let all = lines(&[b"a\n", &long, b"yy\nb\n", b"c"]);
        assert_eq!(all.len(), 4);
        assert_eq!(all[0], Line::Whole(b"a".to_vec()));
        assert_eq!(
            all[1],
            Line::TooLong {
                head: vec![b'x'; 256],
                bytes: LINE_BYTES_MAX + 7
            }
        );
        assert_eq!(all[2], Line::Whole(b"b".to_vec()));
        assert_eq!(all[3], Line::Whole(b"c".to_vec()));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_bytes_arrive(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(lines(&[a, b]), lines(&[&bytes]));
        }
    }
}
