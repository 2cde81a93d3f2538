//! What files are called: who wrote a file is told by its name alone.

/// How the name of a task file ends. Not `.json` alone: what is written beside it ends with that
/// too, and so does much that lies in people's folders and is no task.
const TASK: &str = ".task.json";
/// How that of its status ends.
const STATUS: &str = ".status.json";
/// Longest name before the ending, in bytes: a file system takes 255 in all.
pub(super) const NAME_BYTES_MAX: usize = 240;

/// How names of files begin that are not finished yet; they are renamed into place.
pub(super) const UNFINISHED: &str = ".conductor-";

/// The name of a task, by that of its file. Hidden files are unfinished ones of whoever writes
/// there.
pub(super) fn of_task(file: &str) -> Option<&str> {
    before(file, TASK)
}

/// The name of a task, by that of its status.
pub(super) fn of_status(file: &str) -> Option<&str> {
    before(file, STATUS)
}

fn before<'f>(file: &'f str, ending: &str) -> Option<&'f str> {
    let name = file.strip_suffix(ending)?;
    (!name.is_empty() && !name.starts_with('.')).then_some(name)
}

/// The file of a task.
pub(super) fn task(name: &str) -> String {
    format!("{name}{TASK}")
}

/// Where it is said what became of it.
pub(super) fn status(name: &str) -> String {
    format!("{name}{STATUS}")
}

/// Where its result is.
pub(super) fn result(name: &str) -> String {
    format!("{name}.result.json")
}

/// Where it is said why it was not taken.
pub(super) fn error(name: &str) -> String {
    format!("{name}.error.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_task_files_are_task_files() {
        assert_eq!(of_task("a.task.json"), Some("a"));
        assert_eq!(of_task("a.b c.task.json"), Some("a.b c"));
        for other in [
            "a.json",
            ".task.json",
            ".a.task.json",
            "a.task.json~",
            "a.task.json.tmp",
            "a.task.yaml",
        ] {
            assert_eq!(of_task(other), None, "{other}");
        }
        for name in ["a", "a.status", "a.task.json"] {
            assert_eq!(of_task(&task(name)), Some(name));
            assert_eq!(of_status(&status(name)), Some(name));
            for ours in [status(name), result(name), error(name)] {
                assert_eq!(of_task(&ours), None, "{ours}");
            }
        }
    }
}
