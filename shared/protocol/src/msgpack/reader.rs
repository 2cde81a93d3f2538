//! Reading MessagePack value by value, where what comes next is known.
//!
//! Every method gives `None` for anything but what it is asked for, written as our own
//! encoder writes it: whoever reads this way leaves all else to serde.

use super::{map_at, skip_in, str_bytes_at, uint_at};

/// A place in MessagePack bytes that moves on as values are read.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Before the first of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The header of a map: how many entries follow.
    pub(crate) fn map(&mut self) -> Option<usize> {
        let (entries, at) = map_at(self.bytes, self.at).ok()??;
        self.at = at;
        Some(entries)
    }

    /// A text as bytes, whatever they hold: enough to tell names apart.
    pub(crate) fn key(&mut self) -> Option<&'a [u8]> {
        let (text, end) = str_bytes_at(self.bytes, self.at).ok()?;
        self.at = end;
        Some(text)
    }

    /// A text.
    pub(crate) fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.key()?).ok()
    }

    /// An unsigned integer that fits.
    pub(crate) fn uint<T: TryFrom<u64>>(&mut self) -> Option<T> {
        let (n, end) = uint_at(self.bytes, self.at).ok()?;
        self.at = end;
        T::try_from(n).ok()
    }

    /// Exactly these bytes, as header of a value or as a whole one.
    pub(crate) fn exactly(&mut self, expected: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.strip_prefix(expected)?;
        self.at += expected.len();
        Some(())
    }

    /// The payload of a value of binary data that is `N` bytes long.
    pub(crate) fn bin<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.exactly(&[0xc4, u8::try_from(N).ok()?])?;
        let payload = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(payload)
    }

    /// Any value, whole, that stands in maps `depth` deep: with them it must not be deeper than
    /// anything may be.
    pub(crate) fn value(&mut self, depth: usize) -> Option<&'a [u8]> {
        let end = skip_in(self.bytes, self.at, depth).ok()?;
        let value = self.bytes.get(self.at..end);
        self.at = end;
        value
    }
}
