//! Server-sent events from bytes, bounded: of each only its data is of interest.

/// Cuts a stream of bytes into the data of its events.
#[derive(Debug)]
pub(super) struct Sse {
    max: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// Whether this line, and with it its event, has become too long to be held.
    is_line_lost: bool,
    is_event_lost: bool,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_return: bool,
}

impl Sse {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            is_line_lost: false,
            is_event_lost: false,
            after_return: false,
        }
    }

    /// Adds bytes; hands the data of every event that is complete to `each`.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            let end = bytes.iter().position(|b| *b == b'\n' || *b == b'\r');
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.extend(line);
            let Some(end) = rest.first() else { return };
            self.after_return = *end == b'\r';
            self.end_line(&mut each);
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    fn extend(&mut self, part: &[u8]) {
        if self.line.len() + self.data.len() + part.len() > self.max {
            (self.is_line_lost, self.is_event_lost) = (true, true);
            self.line = Vec::new();
            self.data = Vec::new();
        }
        if !self.is_line_lost {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, each: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.is_line_lost) {
            return;
        }
        if self.line.is_empty() {
            let has_data = std::mem::take(&mut self.has_data);
            if !std::mem::take(&mut self.is_event_lost) && has_data {
                each(&self.data);
            }
            self.data.clear();
        } else if let Some(data) = self.line.strip_prefix(b"data:")
            && !self.is_event_lost
        {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data);
            self.has_data = true;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(max: usize, chunks: &[&[u8]]) -> Vec<String> {
        let (mut sse, mut out) = (Sse::new(max), Vec::new());
        for chunk in chunks {
            sse.push(chunk, |d| out.push(String::from_utf8_lossy(d).into_owned()));
        }
        out
    }

    #[test]
    fn events_end_with_an_empty_line_however_lines_end() {
        let text =
            b"event: a\ndata: 1\n\ndata:2\r\ndata: 3\r\n\r\n: ping\n\nid: 7\rdata: 4\r\rdata: lost";
        assert_eq!(data(100, &[text]), ["1", "2\n3", "4"]);
    }

    #[test]
    fn an_event_that_is_too_long_costs_itself_alone() {
        let long = [b"data: ".as_slice(), &[b'x'; 50], b"\n\ndata: 2\n\n"].concat();
        assert_eq!(data(40, &[b"data: 1\n\n", &long]), ["1", "2"]);
        assert_eq!(
            data(40, &[b"data: 1\n\n", &long[..20], &long[20..]]),
            ["1", "2"]
        );
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_bytes_arrive(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'd'), Just(b':'), any::<u8>()], 0..120),
            words in proptest::collection::vec(0_usize..4, 0..20),
            cuts in proptest::collection::vec(0_usize..400, 0..6),
        ) {
            let mut text = bytes;
            for word in words {
                text.extend_from_slice([&b"data: a\n"[..], b"data:b\r\n", b"\n", b"event: x\r"][word]);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            let (mut chunks, mut from) = (Vec::new(), 0);
            for cut in cuts {
                chunks.push(&text[from..cut]);
                from = cut;
            }
            chunks.push(&text[from..]);
            prop_assert_eq!(data(30, &chunks), data(30, &[&text]));
        }
    }
}
