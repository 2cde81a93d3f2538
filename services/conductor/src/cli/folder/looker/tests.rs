//! Looks at a real folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::cli::folder::status::SUBMITTING;

const TASK: &str = "{\"run\": {\"noop\": {}}}";

struct Place {
    dir: tempfile::TempDir,
    folder: Folder,
    looker: Looker,
    ledger: Ledger,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (queue, cell) = ("q".parse().unwrap(), "local".parse().unwrap());
        Self {
            dir,
            folder,
            looker: Looker::new(queue, cell, BTreeMap::new()),
            ledger: Ledger::default(),
        }
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    fn has(&self, file: &str) -> bool {
        self.dir.path().join(file).exists()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap()
    }

    /// The names of the files that are taken now.
    fn look(&mut self) -> Vec<String> {
        let claims = self.looker.look(&self.folder, &mut self.ledger);
        claims.into_iter().map(|(name, _)| name).collect()
    }

    /// As a later process would.
    fn start_anew(&mut self) {
        let before = Before::read(&self.folder).unwrap();
        (self.ledger, _) = Ledger::resume(before.statuses, 0);
        let (queue, cell) = ("q".parse().unwrap(), "local".parse().unwrap());
        self.looker = Looker::new(queue, cell, before.unknown);
    }

    /// As if so much time had passed.
    fn wait(&mut self, time: Duration) {
        for refused in self.looker.refused.values_mut() {
            refused.since = refused.since.checked_sub(time).unwrap();
        }
    }
}

#[test]
fn task_files_are_taken_with_their_status_on_disk_first() {
    let mut place = Place::new();
    for file in ["a.task.json", "b.task.json", "notes.json", ".c.task.json"] {
        place.put(file, TASK);
    }
    place.put("a.result.json", "of an earlier one");
    fs::create_dir(place.dir.path().join("d.task.json")).unwrap();
    symlink("/etc/passwd", place.dir.path().join("e.task.json")).unwrap();
    symlink("notes.json", place.dir.path().join("f.task.json")).unwrap();
    assert_eq!(place.look(), ["a", "b", "f"]);
    let status = Status::read(place.read("a.status.json").as_bytes()).unwrap();
    assert_eq!(status.state, SUBMITTING);
    assert!(status.key.unwrap().starts_with("folder/"));
    assert!(!place.has("a.result.json"));
    let found = Before::read(&place.folder).unwrap().statuses;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "f"]);
    assert_ne!(
        found["a"].key, found["b"].key,
        "the same content is two tasks"
    );
}

#[test]
fn a_half_written_file_waits_and_a_broken_one_is_told() {
    let mut place = Place::new();
    place.put("a.task.json", "{\"run\": ");
    assert_eq!(place.look(), Vec::<String>::new());
    place.wait(SETTLED / 2);
    place.look();
    assert!(!place.has("a.error.txt"), "somebody may be writing it");
    place.put("a.task.json", TASK);
    assert_eq!(place.look(), ["a"]);
    place.put("b.task.json", "{\"run\": ");
    place.look();
    place.wait(SETTLED);
    place.look();
    let told = place.read("b.error.txt");
    assert!(
        told.contains("not JSON") && told.contains("write one task"),
        "{told}"
    );
    place.put("b.task.json", "{\"run\": {\"noop\": {}}, \"prioritty\": 1}");
    place.look();
    let told = place.read("b.error.txt");
    assert!(
        told.contains("prioritty") && told.contains("did you mean priority?"),
        "{told}"
    );
    place.put("b.task.json", &format!("{TASK} "));
    // Nobody has acknowledged the first yet.
    assert_eq!(place.look(), ["a", "b"]);
    assert!(!place.has("b.error.txt"));
}

#[test]
fn what_is_too_large_or_gone_is_not_taken() {
    let mut place = Place::new();
    let large = format!("{TASK}{}", " ".repeat(600 * 1024));
    place.put("a.task.json", &large);
    place.look();
    place.wait(SETTLED);
    assert_eq!(place.look(), Vec::<String>::new());
    assert!(place.read("a.error.txt").contains("at most 524288"));
    fs::remove_file(place.dir.path().join("a.task.json")).unwrap();
    place.look();
    assert!(!place.has("a.error.txt"), "it goes with its file");
}

#[test]
fn nothing_is_submitted_whose_status_cannot_be_written() {
    let mut place = Place::new();
    place.put("a.task.json", TASK);
    // A directory stands where the status belongs.
    let blocked = place.dir.path().join("a.status.json");
    fs::create_dir(&blocked).unwrap();
    assert_eq!(place.look(), Vec::<String>::new());
    fs::remove_dir(Path::new(&blocked)).unwrap();
    assert_eq!(place.look(), ["a"]);
}

#[test]
fn many_files_are_taken_a_few_at_a_time() {
    let mut place = Place::new();
    for n in 0..CLAIMS_MAX + 5 {
        place.put(&format!("{n}.task.json"), TASK);
    }
    assert_eq!(place.look().len(), CLAIMS_MAX);
    place.ledger.sending(&[]);
    place.ledger.not_sent();
    let again = place.look();
    assert_eq!(
        again.len(),
        CLAIMS_MAX,
        "what was not acknowledged comes again"
    );
}

#[test]
fn what_has_a_status_that_cannot_be_read_is_not_new() {
    let mut place = Place::new();
    for name in ["a", "b", "c", "d"] {
        place.put(&format!("{name}.task.json"), TASK);
    }
    place.put("a.status.json", "{\"id\": ");
    place.put("b.status.json", &" ".repeat(65 * 1024));
    fs::create_dir(place.dir.path().join("c.status.json")).unwrap();
    symlink("/etc/hostname", place.dir.path().join("e.status.json")).unwrap();
    place.put("e.task.json", TASK);
    place.start_anew();
    assert_eq!(place.look(), ["d"]);
    for (name, problem) in [
        ("a", "no status of a task"),
        ("b", "at most 65536"),
        ("c", "no file"),
        ("e", "leads out of the folder"),
    ] {
        let told = place.read(&format!("{name}.error.txt"));
        let file = format!("{name}.status.json");
        assert!(told.contains(problem) && told.contains(&file), "{told}");
        assert!(told.contains("remove it to submit the task again"));
    }
    // Another content does not make it known.
    place.put("a.task.json", &format!("{TASK} "));
    assert_eq!(place.look(), ["d"], "which nobody has acknowledged yet");
    fs::remove_file(place.dir.path().join("a.status.json")).unwrap();
    assert_eq!(place.look(), ["a", "d"]);
    assert!(!place.has("a.error.txt") && place.has("b.error.txt"));
    fs::remove_file(place.dir.path().join("b.task.json")).unwrap();
    place.look();
    assert!(!place.has("b.error.txt"), "it goes with its file");
}

#[test]
fn nobody_starts_on_a_folder_that_cannot_be_listed() {
    let place = Place::new();
    fs::remove_dir(place.dir.path()).unwrap();
    let failure = Before::read(&place.folder).unwrap_err();
    assert!(failure.message.contains("cannot be listed"), "{failure:?}");
    assert!(failure.hint.is_some());
}
