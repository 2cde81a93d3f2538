//! Whether a structured result is what its task's JSON schema asks for.

use boon::{Compiler, Schemas, UrlLoader, ValidationError};
use serde_json::Value;

/// The name under which a task's schema is known to the validator; nothing is there.
const NAME: &str = "https://conductor.invalid/result.json";

/// A schema comes from whoever submitted the task: it names no file or address of ours.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err(format!("{url} is not part of the schema").into())
    }
}

/// Whether a schema can be used.
pub fn check_schema(schema: &str) -> Result<(), String> {
    compiled(schema, |_, _| Ok(()))
}

/// Whether `result` is JSON that fits a schema; says where it does not.
pub fn check(schema: &str, result: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(result).map_err(|e| format!("it is not JSON: {e}"))?;
    compiled(schema, |schemas, index| {
        schemas.validate(&value, index).map_err(|e| deepest(&e))
    })
}

fn compiled(
    schema: &str,
    then: impl FnOnce(&Schemas, boon::SchemaIndex) -> Result<(), String>,
) -> Result<(), String> {
    let unusable = |e: String| format!("result_schema cannot be used: {e}");
    let schema: Value = serde_json::from_str(schema).map_err(|e| unusable(e.to_string()))?;
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.use_loader(Box::new(Nowhere));
    let added = compiler.add_resource(NAME, schema);
    added.map_err(|e| unusable(e.to_string()))?;
    let index = compiler.compile(NAME, &mut schemas);
    let index = index.map_err(|e| unusable(e.to_string()))?;
    then(&schemas, index)
}

/// The first thing that is wrong, as precisely as it is known.
fn deepest(error: &ValidationError<'_, '_>) -> String {
    match error.causes.first() {
        Some(cause) => deepest(cause),
        None => {
            let at = error.instance_location.to_string();
            let at = if at.is_empty() { "/".to_owned() } else { at };
            format!("at {at}: {}", error.kind)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r##"{"type":"object","required":["n"],"properties":
        {"n":{"type":"integer"},"list":{"type":"array","items":{"$ref":"#/$defs/s"}}},
        "$defs":{"s":{"type":"string"}}}"##;

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        assert_eq!(check(SCHEMA, r#"{"n":1,"list":["a"]}"#), Ok(()));
        for (result, place) in [
            (r#"{"n":"x"}"#, "at /n:"),
            (r#"{"n":1,"list":["a",2]}"#, "at /list/1:"),
            ("{}", "n"),
            ("…cut", "it is not JSON"),
        ] {
            let problem = check(SCHEMA, result).unwrap_err();
            assert!(problem.contains(place), "{problem}");
        }
    }

    #[test]
    fn a_schema_reads_nothing_of_ours() {
        for url in ["file:///etc/passwd", "https://example.org/x", "/etc/passwd"] {
            let schema = format!(r#"{{"$ref":"{url}"}}"#);
            let problem = check_schema(&schema).unwrap_err();
            assert!(
                problem.contains("result_schema cannot be used"),
                "{problem}"
            );
            assert!(!problem.contains("root:"), "{problem}");
        }
        assert!(check_schema(r#"{"type":"nonsense"}"#).is_err());
        assert!(check_schema("{").is_err());
        assert_eq!(check_schema(SCHEMA), Ok(()));
    }

    #[test]
    fn a_schema_that_names_itself_does_not_go_on_for_ever() {
        for schema in [r##"{"$ref":"#"}"##, r##"{"allOf":[{"$ref":"#"}]}"##] {
            // Whether it is refused or fits does not matter.
            let _ = check(schema, "{}");
        }
    }
}
