//! All that is written, and by what name.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::{alerts, cases, dashboards};

/// What stands on top of files that can say it.
const NOTE: &str =
    "# Written by `cargo run -p conductor-observability`; edit nats/observability/src instead.\n";

/// Why a file could not be made.
#[derive(Debug)]
pub enum FileError {
    /// As YAML.
    Yaml(serde_yaml_ng::Error),
    /// As JSON.
    Json(serde_json::Error),
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what is to be written cannot be serialized")
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Yaml(e) => Some(e),
            Self::Json(e) => Some(e),
        }
    }
}

impl From<serde_yaml_ng::Error> for FileError {
    fn from(e: serde_yaml_ng::Error) -> Self {
        Self::Yaml(e)
    }
}

impl From<serde_json::Error> for FileError {
    fn from(e: serde_json::Error) -> Self {
        Self::Json(e)
    }
}

/// Every file, by its path in this folder, with its text.
pub fn all() -> Result<BTreeMap<String, String>, FileError> {
    let mut files = BTreeMap::from([
        (
            "rules.yaml".to_owned(),
            NOTE.to_owned() + &alerts::to_yaml()?,
        ),
        (
            "rules.test.yaml".to_owned(),
            NOTE.to_owned() + &cases::of_rules()?,
        ),
        (
            "dashboards.test.yaml".to_owned(),
            NOTE.to_owned() + &cases::of_dashboards()?,
        ),
    ]);
    for dashboard in dashboards::all() {
        let text = serde_json::to_string_pretty(&Sorted(&dashboard.to_json()))?;
        files.insert(format!("dashboards/{}.json", dashboard.slug), text + "\n");
    }
    Ok(files)
}

/// Fields by name, whichever order serde_json is built to keep: another crate of the workspace
/// may ask it to, and the files must not depend on what is built together.
struct Sorted<'v>(&'v Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (name, value) in sorted {
                    map.serialize_entry(name, &Sorted(value))?;
                }
                map.end()
            }
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&Sorted(item))?;
                }
                seq.end()
            }
            other => other.serialize(serializer),
        }
    }
}
