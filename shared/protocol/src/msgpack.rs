//! Walking MessagePack without building it: where values begin and end.
//!
//! Frames are split by these functions before anything is decoded, so that one bad
//! event spoils itself alone and hostile nesting is refused before it is followed.

mod reader;

pub(crate) use reader::Reader;

use crate::limits::DEPTH_MAX;

/// Bytes that are not one well-formed MessagePack value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not well-formed MessagePack")]
pub(crate) struct Broken;

enum Shape {
    Leaf(usize),
    Array(usize),
    Map(usize),
}

fn be(bytes: &[u8], at: usize, width: usize) -> Result<usize, Broken> {
    let slice = bytes
        .get(at..at.checked_add(width).ok_or(Broken)?)
        .ok_or(Broken)?;
    Ok(slice
        .iter()
        .fold(0_usize, |n, b| (n << 8) | usize::from(*b)))
}

/// Header length and shape of the value at `at`; a leaf's shape holds its payload length.
#[inline]
fn head(bytes: &[u8], at: usize) -> Result<(usize, Shape), Broken> {
    let sized = |width: usize, extra: usize| -> Result<(usize, Shape), Broken> {
        Ok((1 + width, Shape::Leaf(be(bytes, at + 1, width)? + extra)))
    };
    Ok(match *bytes.get(at).ok_or(Broken)? {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (1, Shape::Leaf(0)),
        b @ 0x80..=0x8f => (1, Shape::Map(usize::from(b & 0x0f))),
        b @ 0x90..=0x9f => (1, Shape::Array(usize::from(b & 0x0f))),
        b @ 0xa0..=0xbf => (1, Shape::Leaf(usize::from(b & 0x1f))),
        0xc1 => return Err(Broken),
        0xc4 | 0xd9 => sized(1, 0)?,
        0xc5 | 0xda => sized(2, 0)?,
        0xc6 | 0xdb => sized(4, 0)?,
        0xc7 => sized(1, 1)?,
        0xc8 => sized(2, 1)?,
        0xc9 => sized(4, 1)?,
        0xcc | 0xd0 => (1, Shape::Leaf(1)),
        0xcd | 0xd1 | 0xd4 => (1, Shape::Leaf(2)),
        0xca | 0xce | 0xd2 => (1, Shape::Leaf(4)),
        0xcb | 0xcf | 0xd3 => (1, Shape::Leaf(8)),
        0xd5 => (1, Shape::Leaf(3)),
        0xd6 => (1, Shape::Leaf(5)),
        0xd7 => (1, Shape::Leaf(9)),
        0xd8 => (1, Shape::Leaf(17)),
        0xdc => (3, Shape::Array(be(bytes, at + 1, 2)?)),
        0xdd => (5, Shape::Array(be(bytes, at + 1, 4)?)),
        0xde => (3, Shape::Map(be(bytes, at + 1, 2)?)),
        0xdf => (5, Shape::Map(be(bytes, at + 1, 4)?)),
    })
}

/// How many bytes a value takes in all, by its first byte, where that alone says so and it
/// holds no others; 0 otherwise.
#[expect(clippy::indexing_slicing, reason = "checked by the compiler")]
const FIXED: [u8; 256] = {
    let mut fixed = [0; 256];
    let mut first = 0;
    while first < 256 {
        fixed[first] = match first {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 1,
            0xa0..=0xbf => 1 + (first & 0x1f) as u8,
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 | 0xd4 => 3,
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            _ => 0,
        };
        first += 1;
    }
    fixed
};

/// Where the value that begins at `at` ends.
pub(crate) fn skip(bytes: &[u8], at: usize) -> Result<usize, Broken> {
    skip_in(bytes, at, 0)
}

/// The same of a value that stands in others, `outside` of them.
fn skip_in(bytes: &[u8], at: usize, outside: usize) -> Result<usize, Broken> {
    let mut at = at;
    // Values still to come at this depth, and at those above it.
    let mut left = 1_usize;
    let mut above = [0_usize; DEPTH_MAX];
    let mut depth = 0_usize;
    loop {
        let first = *bytes.get(at).ok_or(Broken)?;
        let fixed = FIXED.get(usize::from(first)).copied().unwrap_or(0);
        let mut children = 0;
        if fixed == 0 {
            let (header, shape) = head(bytes, at)?;
            at += header;
            match shape {
                Shape::Leaf(n) => at = at.checked_add(n).ok_or(Broken)?,
                Shape::Array(n) => children = n,
                Shape::Map(n) => children = n.checked_mul(2).ok_or(Broken)?,
            }
        } else {
            at += usize::from(fixed);
        }
        // A child takes a byte at least, so a count beyond the rest is a lie.
        if at > bytes.len() || children > bytes.len() - at {
            return Err(Broken);
        }
        if children > 0 {
            if outside + depth >= DEPTH_MAX {
                return Err(Broken);
            }
            *above.get_mut(depth).ok_or(Broken)? = left;
            depth += 1;
            left = children;
            continue;
        }
        left -= 1;
        while left == 0 {
            let Some(up) = depth.checked_sub(1) else {
                return Ok(at);
            };
            depth = up;
            left = above.get(up).copied().unwrap_or(0).saturating_sub(1);
        }
    }
}

/// The number of elements and the start of the first, if an array begins at `at`.
pub(crate) fn array_at(bytes: &[u8], at: usize) -> Result<Option<(usize, usize)>, Broken> {
    let (header, shape) = head(bytes, at)?;
    Ok(match shape {
        Shape::Array(n) => Some((n, at + header)),
        _ => None,
    })
}

/// The number of entries and the start of the first key, if a map begins at `at`.
pub(crate) fn map_at(bytes: &[u8], at: usize) -> Result<Option<(usize, usize)>, Broken> {
    let (header, shape) = head(bytes, at)?;
    Ok(match shape {
        Shape::Map(n) => Some((n, at + header)),
        _ => None,
    })
}

/// The bytes of the text that begins at `at`, and where it ends.
fn str_bytes_at(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Broken> {
    let first = *bytes.get(at).ok_or(Broken)?;
    let (header, len) = match first {
        0xa0..=0xbf => (1, usize::from(first & 0x1f)),
        0xd9..=0xdb => match head(bytes, at)? {
            (header, Shape::Leaf(len)) => (header, len),
            _ => return Err(Broken),
        },
        _ => return Err(Broken),
    };
    let end = (at + header).checked_add(len).ok_or(Broken)?;
    Ok((bytes.get(at + header..end).ok_or(Broken)?, end))
}

/// The text that begins at `at`, and where it ends.
pub(crate) fn str_at(bytes: &[u8], at: usize) -> Result<(&str, usize), Broken> {
    let (text, end) = str_bytes_at(bytes, at)?;
    Ok((std::str::from_utf8(text).map_err(|_| Broken)?, end))
}

/// The unsigned integer that begins at `at`, and where it ends.
pub(crate) fn uint_at(bytes: &[u8], at: usize) -> Result<(u64, usize), Broken> {
    let width = match *bytes.get(at).ok_or(Broken)? {
        b @ 0x00..=0x7f => return Ok((u64::from(b), at + 1)),
        0xcc => 1,
        0xcd => 2,
        0xce => 4,
        0xcf => 8,
        _ => return Err(Broken),
    };
    Ok((be(bytes, at + 1, width)? as u64, at + 1 + width))
}

/// Writes the header of a map with `entries` entries.
pub(crate) fn put_map(out: &mut Vec<u8>, entries: usize) {
    if entries < 16 {
        out.push(0x80 | entries as u8);
    } else {
        out.push(0xdf);
        out.extend_from_slice(&(entries as u32).to_be_bytes());
    }
}

/// Overwrites the header of an empty map at `at` with that of one with `entries` entries.
pub(crate) fn set_map(out: &mut Vec<u8>, at: usize, entries: usize) {
    match out.get_mut(at) {
        Some(header) if entries < 16 => *header = 0x80 | entries as u8,
        _ => {
            let mut header = Vec::with_capacity(5);
            put_map(&mut header, entries);
            out.splice(at..=at, header);
        }
    }
}

/// Writes the header of an array with `len` elements.
pub(crate) fn put_array(out: &mut Vec<u8>, len: usize) {
    if len < 16 {
        out.push(0x90 | len as u8);
    } else {
        out.push(0xdd);
        out.extend_from_slice(&(len as u32).to_be_bytes());
    }
}

/// Writes a text of fewer than 32 bytes.
pub(crate) fn put_short_str(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 32, "keys and type names are short");
    out.push(0xa0 | (text.len() as u8 & 0x1f));
    out.extend_from_slice(text.as_bytes());
}

/// Writes an unsigned integer in its shortest form.
pub(crate) fn put_uint(out: &mut Vec<u8>, n: u64) {
    if n < 0x80 {
        out.push(n as u8);
    } else if let Ok(n) = u32::try_from(n) {
        out.push(0xce);
        out.extend_from_slice(&n.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&n.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn skips_exactly_one_value() {
        let value = rmp_serde::to_vec_named(&serde_json::json!({
            "a": [1, -1, 300, 70_000, 5_000_000_000_u64, 1.5, null, true],
            "b": {"c": "x".repeat(300), "d": "y".repeat(70_000)},
        }))
        .unwrap();
        assert_eq!(skip(&value, 0), Ok(value.len()));
        let mut more = value.clone();
        more.push(0xc0);
        assert_eq!(skip(&more, 0), Ok(value.len()));
        assert_eq!(skip(&value[..value.len() - 1], 0), Err(Broken));
    }

    #[test]
    fn hostile_nesting_and_counts_are_refused() {
        assert_eq!(skip(&[0x91; 1000], 0), Err(Broken));
        assert_eq!(skip(&[0xdd, 0xff, 0xff, 0xff, 0xff], 0), Err(Broken));
        assert_eq!(skip(&[0xc6, 0xff, 0xff, 0xff, 0xff], 0), Err(Broken));
        assert_eq!(skip(&[0xc1], 0), Err(Broken));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(end) = skip(&bytes, 0) {
                prop_assert!(end <= bytes.len());
                prop_assert!(end > 0);
            }
        }
    }
}
