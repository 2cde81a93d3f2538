//! What an attempt finds in its workspace: `.conductor/task.json`, and the results of the tasks it
//! needed as `.conductor/needs/<name or id>`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use conductor_protocol::event::{AttemptAssigned, Input};
use conductor_protocol::ids::Lease;
use serde_json::{Value, json};

/// The directory of what is exchanged with programs.
pub(crate) const FOLDER: &str = ".conductor";
/// What is ours in it; the rest belongs to whoever made it.
const OURS: [&str; 4] = ["task.json", "needs", "progress.jsonl", "result.json"];
/// Longest name of a file.
const NAME_BYTES_MAX: usize = 200;

/// Places the inputs, and removes what earlier attempts left. Nothing runs in the workspace then.
pub(crate) fn place(workspace: &Path, lease: &Lease, assigned: &AttemptAssigned) -> io::Result<()> {
    let folder = workspace.join(FOLDER);
    // A link would have us write elsewhere.
    if !crate::beneath::is_real_dir(&folder) {
        remove(&folder)?;
        fs::create_dir(&folder)?;
    }
    for name in OURS {
        remove(&folder.join(name))?;
    }
    let names = file_names(&assigned.inputs);
    if !names.is_empty() {
        fs::create_dir(folder.join("needs"))?;
    }
    for (name, input) in names.iter().zip(&assigned.inputs) {
        let result = input.result.as_deref().unwrap_or_default();
        fs::write(folder.join("needs").join(name), result)?;
    }
    let task = describe(lease, assigned);
    let text = serde_json::to_vec_pretty(&task).map_err(io::Error::other)?;
    fs::write(folder.join("task.json"), text)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The file of each input: its name where that can be one and is the only one, else its id.
fn file_names(inputs: &[Input]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let name = |input: &Input| {
        let name = input.name.as_deref().filter(|name| is_file_name(name));
        let name = name.filter(|name| !taken.contains(*name));
        let name = name.map_or_else(|| input.task.to_string(), str::to_owned);
        taken.insert(name.clone());
        name
    };
    inputs.iter().map(name).collect()
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c.is_control())
}

/// What a program may know of its task.
pub(crate) fn describe(lease: &Lease, assigned: &AttemptAssigned) -> Value {
    let names = file_names(&assigned.inputs);
    let terms = assigned.terms.as_deref();
    let schema = terms.and_then(|t| t.result_schema.as_deref());
    let metadata: serde_json::Map<String, Value> = assigned
        .metadata
        .iter()
        .map(|(k, v)| (k.to_owned(), v.into()))
        .collect();
    let needs: Vec<Value> = names
        .iter()
        .zip(&assigned.inputs)
        .map(|(file, input)| {
            let file = format!("{FOLDER}/needs/{file}");
            json!({"task": input.task, "name": input.name, "file": file})
        })
        .collect();
    json!({
        "task": lease.task, "attempt": lease.attempt, "name": assigned.name,
        "queue": assigned.queue, "namespace": assigned.namespace,
        "metadata": metadata, "budget": terms.and_then(|t| t.budget),
        "result_schema": schema.and_then(|s| serde_json::from_str::<Value>(s).ok()),
        "needs": needs,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::assigned;
    use super::*;
    use std::os::unix::fs::symlink;

    fn input(name: Option<&str>, result: Option<&str>, n: u8) -> Input {
        let mut id = [n; 16];
        id[6] = 0x70;
        id[8] = 0x80;
        let task = uuid::Uuid::from_bytes(id).to_string().parse().unwrap();
        Input {
            task,
            name: name.map(Into::into),
            result: result.map(str::to_owned),
        }
    }

    #[test]
    fn results_of_needs_are_files_and_the_task_is_told_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let (lease, mut assigned) = assigned(json!({
            "metadata": {"ticket": "7"}, "result_schema": {"type": "object"},
            "budget": {"usd": 2.0},
        }));
        assigned.inputs = vec![
            input(Some("build"), Some("ok\n"), 1),
            input(Some("build"), Some("again"), 2),
            input(Some("../../etc/passwd"), Some("evil"), 3),
            input(None, None, 4),
        ];
        place(dir.path(), &lease, &assigned).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(FOLDER).join(name)).unwrap();
        assert_eq!(read("needs/build"), "ok\n");
        for (i, text) in [(1, "again"), (2, "evil"), (3, "")] {
            assert_eq!(read(&format!("needs/{}", assigned.inputs[i].task)), text);
        }
        let task: Value = serde_json::from_str(&read("task.json")).unwrap();
        assert_eq!(task["task"], lease.task.to_string());
        assert_eq!(task["metadata"]["ticket"], "7");
        assert_eq!(task["budget"]["usd"], 2.0);
        assert_eq!(task["result_schema"]["type"], "object");
        assert_eq!(task["needs"][0]["file"], ".conductor/needs/build");
    }

    #[test]
    fn what_an_earlier_attempt_left_leads_nobody_astray() {
        let base = tempfile::tempdir().unwrap();
        let (lease, assigned) = assigned(json!({}));
        let ws = base.path().join("ws");
        let folder = ws.join(FOLDER);
        let elsewhere = base.path().join("elsewhere");
        for dir in [&ws, &elsewhere] {
            fs::create_dir_all(dir).unwrap();
        }
        symlink(&elsewhere, &folder).unwrap();
        place(&ws, &lease, &assigned).unwrap();
        assert!(
            fs::read_dir(&elsewhere).unwrap().next().is_none(),
            "written through a link"
        );
        // The same for each file in it; what is not ours stays.
        fs::write(folder.join("notes"), "n").unwrap();
        fs::write(folder.join("result.json"), "old").unwrap();
        fs::remove_file(folder.join("task.json")).unwrap();
        symlink(elsewhere.join("file"), folder.join("task.json")).unwrap();
        place(&ws, &lease, &assigned).unwrap();
        assert!(!elsewhere.join("file").exists());
        assert!(!folder.join("result.json").exists() && folder.join("notes").exists());
    }
}
