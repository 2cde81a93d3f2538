//! Until when a provider has no more, as its headers say.

use hyper::HeaderMap;

/// The time in milliseconds since 1970 until which a 429 holds, where it says so. `now_ms` is the
/// time it came.
pub fn until_ms(headers: &HeaderMap, now_ms: u64) -> Option<u64> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::trim)
    };
    if let Some(seconds) = text("retry-after").and_then(seconds_ms) {
        return Some(now_ms.saturating_add(seconds));
    }
    // Limits of subscriptions: seconds since 1970.
    let unified = text("anthropic-ratelimit-unified-reset").and_then(seconds_ms);
    if unified.is_some() {
        return unified;
    }
    let anthropic = ["requests", "tokens", "input-tokens", "output-tokens"]
        .map(|what| format!("anthropic-ratelimit-{what}"))
        .into_iter()
        .filter(|base| text(&format!("{base}-remaining")) == Some("0"))
        .filter_map(|base| {
            let at = text(&format!("{base}-reset"))?;
            conductor_protocol::human::parse_time(at).map(|t| t.0)
        });
    let open_ai = ["requests", "tokens"]
        .into_iter()
        .filter(|what| text(&format!("x-ratelimit-remaining-{what}")) == Some("0"))
        .filter_map(|what| text(&format!("x-ratelimit-reset-{what}")).and_then(span_ms))
        .map(|span| now_ms.saturating_add(span));
    anthropic.chain(open_ai).max()
}

fn seconds_ms(text: &str) -> Option<u64> {
    let seconds: f64 = text.parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0) as u64)
}

/// A span such as `6m0s`, `1.5s` or `20ms`.
fn span_ms(text: &str) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let factor = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    Some(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(headers: &[(&'static str, &str)]) -> Option<u64> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        until_ms(&map, 1_000_000)
    }

    #[test]
    fn each_providers_way_to_say_it_is_understood() {
        assert_eq!(until(&[("retry-after", "7")]), Some(1_007_000));
        assert_eq!(
            until(&[("anthropic-ratelimit-unified-reset", "1800000000")]),
            Some(1_800_000_000_000)
        );
        let anthropic = [
            ("anthropic-ratelimit-requests-remaining", "3"),
            ("anthropic-ratelimit-requests-reset", "2026-11-20T13:00:00Z"),
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2026-11-20T12:00:00Z"),
        ];
        assert_eq!(until(&anthropic), Some(1_795_176_000_000));
        let open_ai = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "6m0.5s"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "20ms"),
        ];
        assert_eq!(until(&open_ai), Some(1_360_500));
        assert_eq!(until(&[]), None);
        assert_eq!(until(&[("retry-after", "soon")]), None);
    }
}
