//! The forms in which a secret is met: as it is, and as programs usually write bytes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Shorter ones would be found everywhere.
const LEAST: usize = 4;
/// Encoded ones, and lines of longer ones, have to be longer to be told from other text.
const ENCODED_LEAST: usize = 8;
/// `base64` breaks its lines here.
const BASE64_LINE: usize = 76;

/// Every form of a secret.
pub(super) fn of(secret: &[u8]) -> Vec<Vec<u8>> {
    let secret = secret.trim_ascii();
    let mut forms = vec![secret.to_vec()];
    if secret.contains(&b'\n') {
        let lines = secret.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        let long = lines.filter(|line| line.len() >= ENCODED_LEAST);
        forms.extend(long.map(<[u8]>::to_vec));
    }
    forms.retain(|form| form.len() >= LEAST);
    if forms.is_empty() {
        return forms;
    }
    let mut encoded = base64_forms(secret);
    encoded.extend([
        hex(secret, b"0123456789abcdef"),
        hex(secret, b"0123456789ABCDEF"),
    ]);
    encoded.extend(percent_forms(secret));
    encoded.extend(json_forms(secret));
    encoded.retain(|form| form.len() >= ENCODED_LEAST);
    forms.extend(encoded);
    forms
}

/// What it is as a part of more bytes that are encoded as base64: that depends on how many stand
/// before it. At each end a few bits are shared with the neighbours.
fn base64_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let whole = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    let mut forms: Vec<Vec<u8>> = whole.map(|e| e.encode(secret).into_bytes()).to_vec();
    for before in 0..3 {
        let bytes = [vec![0; before], secret.to_vec()].concat();
        let shared_before = [0, 2, 3].get(before).copied().unwrap_or(0);
        let shared_after = usize::from(bytes.len() % 3 != 0);
        for encoded in [
            STANDARD_NO_PAD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            let end = encoded.len().saturating_sub(shared_after);
            let core = encoded
                .as_bytes()
                .get(shared_before..end)
                .unwrap_or_default();
            forms.push(core.to_vec());
            if before == 0 && core.len() > BASE64_LINE {
                forms.extend(core.chunks(BASE64_LINE).map(<[u8]>::to_vec));
            }
        }
    }
    forms
}

fn hex(secret: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    let digit = |n: u8| digits.get(usize::from(n)).copied().unwrap_or(b'0');
    secret
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 15)])
        .collect()
}

/// As in a URL: what is left as it is differs, and so do the digits.
fn percent_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let encode = |kept: &[u8], digits: &[u8; 16], is_form: bool| {
        let mut out = Vec::new();
        for b in secret {
            if b.is_ascii_alphanumeric() || kept.contains(b) {
                out.push(*b);
            } else if is_form && *b == b' ' {
                out.push(b'+');
            } else {
                out.push(b'%');
                out.extend(hex(&[*b], digits));
            }
        }
        out
    };
    let mut forms = Vec::new();
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        // RFC 3986; encodeURIComponent; encodeURI; Python's quote; forms.
        forms.push(encode(b"-._~", digits, false));
        forms.push(encode(b"-._~!*'()", digits, false));
        forms.push(encode(b"-._~!*'();/?:@&=+$,#", digits, false));
        forms.push(encode(b"-._~/", digits, false));
        forms.push(encode(b"-._*", digits, true));
        forms.push(encode(b"-._~", digits, true));
    }
    forms
}

/// As in a JSON text: once, and within another.
fn json_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(secret);
    let inside = |json: String| {
        json.get(1..json.len().saturating_sub(1))
            .unwrap_or_default()
            .to_owned()
    };
    let once = inside(serde_json::Value::from(text.as_ref()).to_string());
    let twice = inside(serde_json::Value::from(once.as_str()).to_string());
    let slashed = once.replace('/', "\\/");
    let ascii: String = once.chars().map(ascii_json).collect();
    [once, twice, slashed, ascii]
        .map(String::into_bytes)
        .to_vec()
}

/// A character as in JSON of ASCII alone.
fn ascii_json(c: char) -> String {
    if c.is_ascii() {
        return c.to_string();
    }
    let mut units = [0; 2];
    let units = c.encode_utf16(&mut units).iter();
    units.map(|unit| format!("\\u{unit:04x}")).collect()
}
