//! Tasks from a file: YAML, JSON or JSON lines; one, a list, or several documents.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use conductor_protocol::ids::QueueName;
use conductor_protocol::submission::from_json_value;
use conductor_protocol::{TaskId, UnixMs};
use serde::Deserialize;
use serde_json::Value;

use super::Order;
use crate::exit::{Failure, Outcome};

/// Reads every task of a file; on failure everything that is wrong with it.
pub(super) fn read(path: &Path, queue: &QueueName) -> Outcome<Vec<Order>> {
    let name = if path == Path::new("-") {
        "standard input".into()
    } else {
        path.display().to_string()
    };
    let mut text = String::new();
    let result = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut f| f.read_to_string(&mut text))
    };
    result.map_err(|e| Failure::usage(format!("cannot read {name}: {e}")))?;
    let values = parse(&text).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
    let (mut orders, mut problems) = (Vec::new(), Vec::new());
    for (n, value) in values.into_iter().enumerate() {
        let origin = format!("{name}, task {}", n + 1);
        match order(value, queue, origin.clone()) {
            Ok(order) => orders.push(order),
            Err(wrong) => problems.extend(wrong.iter().map(|e| format!("{origin}: {e}"))),
        }
    }
    if problems.is_empty() && orders.is_empty() {
        problems.push(format!("{name} holds no task"));
    }
    if problems.is_empty() {
        return Ok(orders);
    }
    Err(Failure::usage(format!(
        "nothing was submitted:\n  {}",
        problems.join("\n  ")
    )))
}

/// One task as a file has it, for the queue it names or else for `queue`; on failure every wrong
/// field, each with what is expected there.
pub(crate) fn order(value: Value, queue: &QueueName, origin: String) -> Result<Order, Vec<String>> {
    let own_queue = value
        .get("queue")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let submission = from_json_value(value)
        .map_err(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let queue = own_queue.map_or(Ok(queue.clone()), |q| q.parse());
    Ok(Order {
        queue: queue.map_err(|e| vec![format!("queue: {e}")])?,
        submission,
        origin,
    })
}

/// Whatever the text is in, as a flat list of values.
fn parse(text: &str) -> Result<Vec<Value>, String> {
    let flat = |values: Vec<Value>| {
        values
            .into_iter()
            .flat_map(|v| match v {
                Value::Array(items) => items,
                Value::Null => Vec::new(),
                other => vec![other],
            })
            .collect()
    };
    // JSON and JSON lines are the same to a reader of a stream of values.
    let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect();
    if let Ok(values) = json {
        return Ok(flat(values));
    }
    let looks_like_json = text.trim_start().starts_with(['{', '[']);
    if let (Err(e), true) = (json, looks_like_json) {
        return Err(format!("not JSON: {e}"));
    }
    let mut values = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        values.push(Value::deserialize(document).map_err(|e| format!("not YAML: {e}"))?);
    }
    Ok(flat(values))
}

/// Gives every task an id, so that a repeated submission stays one, and turns names in
/// `needs` into ids, so that it does not matter which record a task ends up in.
pub(super) fn name_all(orders: &mut [Order]) -> Outcome<()> {
    let mut names: BTreeMap<String, Option<TaskId>> = BTreeMap::new();
    for order in orders.iter_mut() {
        let id = *order.submission.id.get_or_insert_with(new_id);
        if let Some(name) = &order.submission.name {
            names
                .entry(name.clone())
                .and_modify(|twin| *twin = None)
                .or_insert(Some(id));
        }
    }
    for order in orders.iter_mut() {
        for need in &mut order.submission.needs {
            match names.get(need) {
                Some(Some(id)) => *need = id.to_string(),
                Some(None) => {
                    let message =
                        format!("{}: needs: the name {need:?} stands twice", order.origin);
                    return Err(Failure::usage(message));
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// An id of our own making.
pub(crate) fn new_id() -> TaskId {
    let ms = now_ms();
    let mut random = [0_u8; 10];
    random.copy_from_slice(
        uuid::Uuid::new_v4()
            .as_bytes()
            .get(..10)
            .unwrap_or(&[0; 10]),
    );
    TaskId::from_parts(ms, random)
}

/// The time by our own clock.
pub(crate) fn now_ms() -> UnixMs {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Orders tasks so that each comes after those it needs; returns whether any needs any,
/// which means that their records must not overtake each other.
pub(super) fn needs_first(orders: &mut Vec<Order>) -> bool {
    let ids: BTreeMap<String, usize> = orders
        .iter()
        .enumerate()
        .filter_map(|(i, o)| Some((o.submission.id?.to_string(), i)))
        .collect();
    let needs: Vec<Vec<usize>> = orders
        .iter()
        .map(|o| {
            o.submission
                .needs
                .iter()
                .filter_map(|n| ids.get(n).copied())
                .collect()
        })
        .collect();
    if needs.iter().all(Vec::is_empty) {
        return false;
    }
    let mut depth: BTreeMap<usize, usize> = BTreeMap::new();
    // As often as there are tasks is enough for the longest chain; a circle is refused later.
    for _ in 0..orders.len() {
        let mut has_changed = false;
        for (i, needs) in needs.iter().enumerate() {
            let d = needs
                .iter()
                .map(|n| depth.get(n).copied().unwrap_or(0) + 1)
                .max()
                .unwrap_or(0);
            if d <= orders.len() && depth.insert(i, d) != Some(d) {
                has_changed = true;
            }
        }
        if !has_changed {
            break;
        }
    }
    let mut order: Vec<usize> = (0..orders.len()).collect();
    order.sort_by_key(|i| depth.get(i).copied().unwrap_or(0));
    let mut taken: Vec<Option<Order>> = std::mem::take(orders).into_iter().map(Some).collect();
    orders.extend(
        order
            .into_iter()
            .filter_map(|i| taken.get_mut(i).and_then(Option::take)),
    );
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_ok(text: &str) -> Vec<Value> {
        parse(text).unwrap()
    }

    #[test]
    fn every_form_of_file_is_the_same_list() {
        let one = r#"{"run":{"noop":{}}}"#;
        assert_eq!(parse_ok(one).len(), 1);
        assert_eq!(parse_ok(&format!("{one}\n{one}\n")).len(), 2);
        assert_eq!(parse_ok(&format!("[{one},{one}]")).len(), 2);
        assert_eq!(
            parse_ok("run: {noop: {}}\n---\n- run: {noop: {}}\n- run: {noop: {}}\n").len(),
            3
        );
        assert!(parse("{\"run\":").unwrap_err().contains("JSON"));
        assert!(parse("a: [").unwrap_err().contains("YAML"));
    }

    #[test]
    fn names_become_ids_and_needs_come_first() {
        let queue: QueueName = "q".parse().unwrap();
        let yaml = "- {name: d, needs: [b, c], run: {noop: {}}}\n- {name: b, needs: [a], run: {noop: {}}}\n- {name: c, needs: [a], run: {noop: {}}}\n- {name: a, run: {noop: {}}}\n";
        let mut orders: Vec<Order> = parse_ok(yaml)
            .into_iter()
            .map(|v| Order {
                queue: queue.clone(),
                submission: from_json_value(v).unwrap(),
                origin: String::new(),
            })
            .collect();
        name_all(&mut orders).unwrap();
        assert!(needs_first(&mut orders));
        let names: Vec<_> = orders
            .iter()
            .map(|o| o.submission.name.clone().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert!(
            orders[3]
                .submission
                .needs
                .iter()
                .all(|n| n.parse::<TaskId>().is_ok())
        );
    }
}
