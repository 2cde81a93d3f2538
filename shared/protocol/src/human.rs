//! Durations and times as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::UnixMs;

/// A duration in milliseconds; read from a whole number of milliseconds or a text such
/// as `"90s"`, `"5m"`, `"1h 30m"`; written as milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct DurationMs(pub u64);

/// Parses `"90s"`, `"1h 30m"`, or a bare number of milliseconds.
pub fn parse_duration(text: &str) -> Option<DurationMs> {
    if let Ok(ms) = text.trim().parse::<u64>() {
        return Some(DurationMs(ms));
    }
    let duration = humantime::parse_duration(text.trim()).ok()?;
    u64::try_from(duration.as_millis()).ok().map(DurationMs)
}

impl fmt::Display for DurationMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_millis(self.0)).fmt(f)
    }
}

impl Serialize for DurationMs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for DurationMs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = DurationMs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("milliseconds or a text such as \"90s\"")
            }
            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<DurationMs, E> {
                Ok(DurationMs(ms))
            }
            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<DurationMs, E> {
                u64::try_from(ms).map(DurationMs).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<DurationMs, E> {
                parse_duration(s).ok_or_else(|| E::custom("not a duration"))
            }
        }
        d.deserialize_any(V)
    }
}

/// A number of bytes; read from a whole number or a text such as `"512m"`, `"2g"` (powers of
/// 1024); written as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ByteSize(pub u64);

/// Parses `"2g"`, `"512 MiB"`, or a bare number of bytes.
pub fn parse_bytes(text: &str) -> Option<ByteSize> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(1 << shift).map(ByteSize)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = |shift: &u32| self.0 != 0 && self.0.trailing_zeros() >= *shift;
        match units.iter().find(|(shift, _)| whole(shift)) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes or a text such as \"2g\"")
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<ByteSize, E> {
                parse_bytes(s).ok_or_else(|| E::custom("not a number of bytes"))
            }
        }
        d.deserialize_any(V)
    }
}

/// A point in time; read from Unix milliseconds or an RFC 3339 text; written as milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct TimeMs(pub UnixMs);

/// Parses an RFC 3339 text or a bare number of Unix milliseconds.
pub fn parse_time(text: &str) -> Option<TimeMs> {
    if let Ok(ms) = text.trim().parse::<u64>() {
        return Some(TimeMs(ms));
    }
    let time = chrono::DateTime::parse_from_rfc3339(text.trim()).ok()?;
    u64::try_from(time.timestamp_millis()).ok().map(TimeMs)
}

/// `ms` as RFC 3339 text in UTC with milliseconds.
pub fn format_time(ms: UnixMs) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(chrono::DateTime::from_timestamp_millis)
        .map_or_else(
            || format!("{ms} ms"),
            |t| t.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        )
}

impl Serialize for TimeMs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for TimeMs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = TimeMs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Unix milliseconds or an RFC 3339 time")
            }
            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<TimeMs, E> {
                Ok(TimeMs(ms))
            }
            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<TimeMs, E> {
                u64::try_from(ms).map(TimeMs).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<TimeMs, E> {
                parse_time(s).ok_or_else(|| E::custom("not an RFC 3339 time"))
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_people_write_them() {
        assert_eq!(parse_bytes("2g"), Some(ByteSize(2 << 30)));
        assert_eq!(parse_bytes("512 MiB"), Some(ByteSize(512 << 20)));
        assert_eq!(parse_bytes("17"), Some(ByteSize(17)));
        assert_eq!(parse_bytes("much"), None);
        assert_eq!(parse_bytes("99999999999t"), None);
        assert_eq!(ByteSize(2 << 30).to_string(), "2 GiB");
        assert_eq!(ByteSize(1500).to_string(), "1500 B");
    }

    #[test]
    fn durations_as_people_write_them() {
        assert_eq!(parse_duration("90s"), Some(DurationMs(90_000)));
        assert_eq!(parse_duration("1h 30m"), Some(DurationMs(5_400_000)));
        assert_eq!(parse_duration("250"), Some(DurationMs(250)));
        assert_eq!(parse_duration("soon"), None);
        assert_eq!(
            parse_time("2026-11-20T00:00:00Z"),
            Some(TimeMs(1_795_132_800_000))
        );
        assert_eq!(format_time(1_795_132_800_123), "2026-11-20T00:00:00.123Z");
    }
}
