//! Standard output and error: data on the one, everything else on the other.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use serde_json::Value;

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Jsonl,
    /// YAML.
    Yaml,
}

/// Writes a line of data. A reader that has gone away ends the process quietly, as it
/// would for any other tool in a pipe.
pub(crate) fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// Writes data as it is.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// Says something to the person at the terminal: what is said there ends up in files and journals,
/// like the log.
pub(crate) fn say(text: &str) {
    let text = conductor_telemetry::logs::masked(text);
    // Nobody may be listening, and that is all right.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says what went wrong and what to do about it.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    say(&format!("error: {message}"));
    if let Some(hint) = hint {
        say(&format!("hint: {hint}"));
    }
}

/// What a colour says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    /// It went well.
    Green,
    /// It went wrong.
    Red,
    /// It did not count.
    Yellow,
}

static HAS_COLOUR: OnceLock<bool> = OnceLock::new();

/// Colour is for terminals, unless somebody said no.
pub(crate) fn set_colour(is_wanted: bool) {
    let has_colour =
        is_wanted && std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal();
    // It is said once, when the process starts.
    let _ = HAS_COLOUR.set(has_colour);
}

/// The text in a colour, where colour is wanted.
pub(crate) fn paint(colour: Colour, text: &str) -> String {
    if !HAS_COLOUR.get().copied().unwrap_or(false) {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Writes rows: as a table of `columns`, or whole.
pub(crate) fn rows(format: Format, columns: &[(&str, &str)], rows: &[Value]) {
    match format {
        Format::Table => line(&table(columns, rows)),
        Format::Json => line(&pretty(&Value::from(rows.to_vec()))),
        Format::Jsonl => rows.iter().for_each(|row| line(&row.to_string())),
        Format::Yaml => bytes(yaml(&Value::from(rows.to_vec())).as_bytes()),
    }
}

/// Writes one thing: field by field, or whole.
pub(crate) fn one(format: Format, value: &Value) {
    match format {
        Format::Table => {
            let fields = value.as_object().into_iter().flatten();
            for (key, value) in fields.filter(|(_, v)| !v.is_null()) {
                line(&format!("{key:<14} {}", cell(value)));
            }
        }
        Format::Json => line(&pretty(value)),
        Format::Jsonl => line(&value.to_string()),
        Format::Yaml => bytes(yaml(value).as_bytes()),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn yaml(value: &Value) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_default()
}

/// A table without borders, for people and for `awk`.
pub(crate) fn table(columns: &[(&str, &str)], rows: &[Value]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|(title, _)| *title));
    for row in rows {
        table.add_row(
            columns
                .iter()
                .map(|(_, field)| cell(row.get(*field).unwrap_or(&Value::Null))),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|l| l.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Text that says nothing to the terminal: what people submit may hold anything.
pub(crate) fn plain(text: &str) -> String {
    let is_safe = |c: char| !c.is_control();
    if text.chars().all(is_safe) {
        return text.to_owned();
    }
    let escape = |c: char| {
        if is_safe(c) {
            c.to_string()
        } else {
            c.escape_default().to_string()
        }
    };
    text.chars().map(escape).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| format!("{k}={}", cell(v)))
            .collect::<Vec<_>>()
            .join(","),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("Größe"), "Größe");
        assert_eq!(plain("a\u{1b}[31m\n\0"), "a\\u{1b}[31m\\n\\u{0}");
    }

    #[test]
    fn tables_are_plain() {
        let rows = [
            json!({"a": "x", "b": 1}),
            json!({"a": "longer", "c": {"k": "v"}}),
        ];
        expect![[r#"
            A       B  C
            x       1  -
            longer  -  k=v"#]]
        .assert_eq(&table(&[("A", "a"), ("B", "b"), ("C", "c")], &rows));
    }
}
