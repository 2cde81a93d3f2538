//! Reading of submissions as our own client writes them: a program that submits much writes the same
//! few fields by the million, and serde would take most of the time of a decision for them
//! (`loadtest/instructions.txt`). What is read here is read as serde reads it, which a test
//! compares; whatever else there is, is left to serde.

use serde::de::DeserializeOwned;

use super::Submission;
use crate::compact::Pairs;
use crate::ids::TaskId;
use crate::msgpack::Reader;
use crate::spec::{NoopSpec, RunSpec};

/// In how many maps a field stands.
const OUTSIDE: usize = 1;

/// Reads a submission; `None` leaves it to serde.
pub(super) fn read(element: &[u8]) -> Option<Submission> {
    let r = &mut Reader::new(element);
    let mut s = Submission::default();
    let mut seen = 0_u32;
    for _ in 0..r.map()? {
        let field = read_field(r, &mut s)?;
        // A field that stands there twice is an error, and serde's to name.
        if seen & (1 << field) != 0 {
            return None;
        }
        seen |= 1 << field;
    }
    (r.at() == element.len()).then_some(s)
}

/// Reads a name and its value; says which of the fields it is.
fn read_field(r: &mut Reader<'_>, s: &mut Submission) -> Option<u32> {
    macro_rules! fields {
        ($($n:literal $name:literal => $field:ident = $value:expr),* $(,)?) => {
            match r.key()? {
                $($name => { s.$field = $value; Some($n) })*
                _ => None,
            }
        };
    }
    fields! {
        0 b"id" => id = Some(TaskId::read(r)?),
        1 b"key" => key = Some(text(r)?),
        2 b"name" => name = Some(text(r)?),
        3 b"run" => run = Some(run(r)?),
        4 b"queue" => queue = Some(text(r)?),
        5 b"namespace" => namespace = Some(text(r)?),
        6 b"priority" => priority = Some(r.uint()?),
        7 b"slots" => slots = Some(r.uint()?),
        8 b"labels" => labels = Pairs::read(r)?,
        9 b"metadata" => metadata = Pairs::read(r)?,
        10 b"needs" => needs = serde(r)?,
        11 b"retry" => retry = Some(serde(r)?),
        12 b"timeouts" => timeouts = Some(serde(r)?),
        13 b"traceparent" => traceparent = Some(text(r)?),
    }
}

fn text(r: &mut Reader<'_>) -> Option<String> {
    r.str().map(str::to_owned)
}

fn run(r: &mut Reader<'_>) -> Option<RunSpec> {
    if r.exactly(b"\x81\xa4noop\x80").is_some() {
        return Some(RunSpec::Noop(NoopSpec {}));
    }
    serde(r)
}

/// A value with nothing unknown in it.
fn serde<T: DeserializeOwned>(r: &mut Reader<'_>) -> Option<T> {
    let mut is_clean = true;
    let mut on_unknown = |_: serde_ignored::Path<'_>| is_clean = false;
    let mut de = rmp_serde::Deserializer::from_read_ref(r.value(OUTSIDE)?);
    let value = serde_ignored::deserialize(&mut de, &mut on_unknown).ok()?;
    is_clean.then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::decode_by_serde;
    use super::*;
    use crate::frame::Encoding;

    fn some_fields() -> impl Strategy<Value = Value> {
        let field = prop_oneof![
            Just(("name", json!("n"))),
            Just(("key", json!("k"))),
            Just(("key", Value::Null)),
            Just(("idempotency_key", json!("k"))),
            Just(("run", json!({"noop": {}}))),
            Just(("run", json!({"noop": {"x": 1}}))),
            Just(("run", json!({"command": ["sh"]}))),
            Just(("run", json!({"command": {"argv": ["sh"], "typo": 1}}))),
            Just(("queue", json!("q"))),
            Just(("namespace", json!("team"))),
            Just(("priority", json!(9))),
            Just(("priority", json!(-1))),
            Just(("priority", json!("9"))),
            Just(("slots", json!(3))),
            Just(("slots", json!(1_u64 << 40))),
            Just(("labels", json!({"b": "1", "a": "2"}))),
            Just(("labels", json!({"a": 1}))),
            Just(("metadata", json!({}))),
            Just(("needs", json!(["a", "b"]))),
            Just(("needs", json!([]))),
            Just(("retry", json!({"max_attempts": 2, "typo": true}))),
            Just(("timeouts", json!({"run": 5}))),
            Just(("traceparent", json!("00-1-2-3"))),
            Just(("type", json!("task"))),
            Just(("sandbox", json!("strict"))),
        ];
        proptest::collection::vec(field, 0..8).prop_map(|fields| {
            let named = fields.into_iter().map(|(k, v)| (k.to_owned(), v));
            Value::Object(named.collect())
        })
    }

    /// The quick way says what serde says, or nothing.
    fn check(element: &[u8]) -> Result<(), TestCaseError> {
        if let Some(quick) = read(element) {
            prop_assert_eq!(Some(quick), decode_by_serde(Encoding::Msgpack, element));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_read_quickly_is_read_as_serde_reads_it(
            fields in some_fields(),
            at: proptest::sample::Index,
            byte: u8,
        ) {
            let mut element = rmp_serde::to_vec_named(&fields).unwrap();
            check(&element)?;
            let at = at.index(element.len());
            element[at] = byte;
            check(&element)?;
            element.truncate(at);
            check(&element)?;
        }
    }

    #[test]
    fn what_our_client_writes_is_read_quickly() {
        let s = Submission {
            id: Some(TaskId::from_parts(7, [7; 10])),
            run: Some(RunSpec::Noop(NoopSpec {})),
            priority: Some(5),
            metadata: [("pad", "x")].into(),
            ..Submission::default()
        };
        assert_eq!(read(&s.encode().unwrap()), Some(s));
    }

    #[test]
    fn a_field_that_stands_twice_is_left_to_serde() {
        let twice = b"\x82\xa4name\xa1a\xa4name\xa1b";
        assert_eq!(read(twice), None);
        let empty = b"\x82\xa5needs\x90\xa5needs\x90";
        assert_eq!(read(empty), None);
    }
}
