use super::*;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use conductor_protocol::event::{AttemptFailed, AttemptProgress};
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::{OutcomeClass, TaskId};
use proptest::prelude::*;

const SECRET: &str = "s3cr3t/+Pä\"ss wörd";

fn masks(secrets: &[&str]) -> Masks {
    let masks = Masks::default();
    masks.set(secrets.iter().map(|s| s.as_bytes()));
    masks
}

fn masked(secrets: &[&str], text: &str) -> String {
    masks(secrets).text(text.to_owned())
}

#[test]
fn a_secret_is_masked_in_every_usual_form() {
    let utf8 = SECRET.as_bytes();
    let hex: String = utf8.iter().map(|b| format!("{b:02x}")).collect();
    for (name, form) in [
        ("plain", SECRET.to_owned()),
        ("hex", hex.clone()),
        ("HEX", hex.to_uppercase()),
        ("base64", STANDARD.encode(utf8)),
        ("base64url", URL_SAFE.encode(utf8)),
        ("base64url without padding", URL_SAFE_NO_PAD.encode(utf8)),
        (
            "encodeURIComponent",
            "s3cr3t%2F%2BP%C3%A4%22ss%20w%C3%B6rd".to_owned(),
        ),
        (
            "small digits",
            "s3cr3t%2f%2bP%c3%a4%22ss%20w%c3%b6rd".to_owned(),
        ),
        ("a form", "s3cr3t%2F%2BP%C3%A4%22ss+w%C3%B6rd".to_owned()),
        ("a path", "s3cr3t/%2BP%C3%A4%22ss%20w%C3%B6rd".to_owned()),
        ("JSON", "s3cr3t/+Pä\\\"ss wörd".to_owned()),
        ("JSON in JSON", "s3cr3t/+Pä\\\\\\\"ss wörd".to_owned()),
        ("JSON of PHP", "s3cr3t\\/+Pä\\\"ss wörd".to_owned()),
        (
            "JSON of Python",
            "s3cr3t/+P\\u00e4\\\"ss w\\u00f6rd".to_owned(),
        ),
    ] {
        let said = masked(&[SECRET], &format!("<{form}>"));
        assert_eq!(said, "<***>", "{name}");
    }
}

#[test]
fn base64_of_more_than_the_secret_does_not_show_it() {
    for before in 0..6 {
        for after in 0..6 {
            let bytes = [
                vec![b'x'; before],
                SECRET.as_bytes().to_vec(),
                vec![b'y'; after],
            ]
            .concat();
            for engine in [&STANDARD, &URL_SAFE] {
                let said = masked(&[SECRET], &engine.encode(&bytes));
                // Whatever can still be decoded of it is not more than its ends.
                assert!(said.contains(MASK), "{before} {after}: {said}");
                assert!(
                    said.len() <= 3 + (before + after) * 4 / 3 + 8,
                    "{before} {after}: {said}"
                );
            }
        }
    }
}

#[test]
fn a_key_in_many_lines_is_masked_line_by_line() {
    let pem =
        "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nAQEFAASCBKcwggSjAgEAAo\n-----END KEY-----\n";
    assert_eq!(masked(&[pem], &format!("a {pem}")), "a ***\n");
    assert_eq!(masked(&[pem], "x AQEFAASCBKcwggSjAgEAAo y"), "x *** y");
    let wrapped = STANDARD.encode("k".repeat(120));
    let wrapped = format!(
        "{}\n{}\n{}",
        &wrapped[..76],
        &wrapped[76..152],
        &wrapped[152..]
    );
    let said = masked(&[&"k".repeat(120)], &wrapped);
    assert!(said.starts_with("***\n***\n"), "{said}");
}

#[test]
fn where_a_text_was_cut_half_a_secret_is_masked_too() {
    assert_eq!(masked(&["abcdefghijkl"], "so abcdefgh…"), "so ***…");
    assert_eq!(masked(&["abcdefghijkl"], "…efghijkl so"), "…*** so");
    assert_eq!(
        masked(&["abcdefghijkl"], "so abcdefgh"),
        "so abcdefgh",
        "it was not cut"
    );
    assert_eq!(
        masked(&["abcdefghijkl"], "so abc…"),
        "so abc…",
        "that could be anything"
    );
    assert_eq!(masked(&["abcdefghijkl"], "…abcdefghijkl…"), "…***…");
}

#[test]
fn the_longest_is_masked_and_what_is_too_short_is_left() {
    assert_eq!(masked(&["abcd", "abcdefgh"], "abcdefgh abcde"), "*** ***e");
    assert_eq!(masked(&["abc", ""], "abc abc"), "abc abc");
    assert_eq!(masked(&[], "abc"), "abc");
    assert_eq!(Masks::default().text("abc".into()), "abc");
}

#[test]
fn facts_are_masked() {
    let masks = masks(&["hunter2-hunter2"]);
    let lease = Lease {
        task: TaskId::from_parts(1, [1; 10]),
        attempt: 1,
        assigned: Position::new(1, 0),
    };
    let failed = AttemptFailed {
        lease,
        class: OutcomeClass::Failed,
        message: "exit code 1: hunter2-hunter2".into(),
        result: Some("it is hunter2-hunter2.".into()),
        exit_code: Some(1),
        signal: None,
        usage: None,
        output: None,
    };
    let progress = AttemptProgress {
        lease,
        percent: None,
        message: Some("hunter2-hunter2".into()),
    };
    for fact in [Event::from(failed), Event::from(progress)] {
        let said = format!("{:?}", masks.fact(fact));
        assert!(!said.contains("hunter2") && said.contains(MASK), "{said}");
    }
}

/// The same, as simply as it can be said.
fn naive(forms: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let here = forms.iter().filter(|f| text[at..].starts_with(f));
        match here.map(Vec::len).max() {
            Some(len) => {
                out.extend(MASK.bytes());
                at += len;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn pieces_are_masked_as_the_whole_would_be(
        secrets in proptest::collection::vec("[ab]{4,9}", 1..4),
        text in "[ab%=]{0,60}",
        with in proptest::collection::vec(0_usize..100, 0..4),
        cuts in proptest::collection::vec(0_usize..400, 0..12),
    ) {
        let forms: Vec<Vec<u8>> = secrets.iter().flat_map(|s| super::forms::of(s.as_bytes())).collect();
        let mut text = text.into_bytes();
        for n in with {
            text.extend_from_slice(&forms[n % forms.len()]);
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
        cuts.sort_unstable();
        let masks = Masks::default();
        masks.set(secrets.iter().map(String::as_bytes));
        let (mut stream, mut out, mut from) = (Stream::default(), Vec::new(), 0);
        for cut in cuts.into_iter().chain([text.len()]) {
            out.extend(stream.push(&masks, &text[from..cut]));
            from = cut;
        }
        // What is held back is never more than a form.
        prop_assert!(stream.held.len() < forms.iter().map(Vec::len).max().unwrap());
        out.extend(stream.finish(&masks));
        let expected = naive(&forms, &text);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn nothing_of_a_secret_is_shown(
        secret in "[A-Za-z0-9_/+=.-]{12,40}",
        before in proptest::collection::vec(any::<u8>(), 0..7),
        after in proptest::collection::vec(any::<u8>(), 0..7),
        cut in 0_usize..100,
    ) {
        let masks = masks(&[&secret]);
        let whole = [before, secret.clone().into_bytes(), after].concat();
        for text in [whole.clone(), STANDARD.encode(&whole).into_bytes(), URL_SAFE_NO_PAD.encode(&whole).into_bytes()] {
            let (a, b) = text.split_at(cut.min(text.len()));
            let mut stream = Stream::default();
            let shown = [stream.push(&masks, a), stream.push(&masks, b), stream.finish(&masks)].concat();
            let shown = String::from_utf8_lossy(&shown).into_owned();
            prop_assert!(!shown.contains(&secret));
            prop_assert!(shown.contains(MASK), "{}", shown);
        }
    }
}
