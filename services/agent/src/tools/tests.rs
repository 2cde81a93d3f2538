use std::sync::Arc;

use super::testing::{Opened, Pit, Shelf, allow, lease, opened, opened_with};
use super::*;
use crate::workspace::collect::ARTIFACTS_BYTES_MAX;
use conductor_protocol::terms::Answer;

struct Room {
    dir: tempfile::TempDir,
    tools: Tools,
    people: People,
    told: mpsc::UnboundedReceiver<Event>,
    shelf: Arc<Shelf>,
}

impl Room {
    fn new(schema: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let Opened {
            tools,
            people,
            told,
            shelf,
        } = opened(dir.path(), schema);
        Self {
            dir,
            tools,
            people,
            told,
            shelf,
        }
    }

    fn attempt(&self) -> &dyn Attempt {
        self.tools.0.as_ref()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    async fn attach(&self, path: &str, name: Option<&str>) -> Result<Attached, String> {
        let file = AttachArtifact {
            path: path.to_owned(),
            name: name.map(str::to_owned),
        };
        let kept = self.attempt().attach(file).await;
        kept.map_err(|e| e.to_string())
    }
}

fn complete(summary: &str, structured: Option<Value>) -> Complete {
    Complete {
        summary: summary.to_owned(),
        structured,
    }
}

#[tokio::test]
async fn a_file_is_kept_by_its_path_as_the_program_sees_it() {
    let mut room = Room::new(None);
    room.write("out/a.txt", "abc");
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for (path, name, called) in [
        ("out/a.txt", None, "out/a.txt"),
        ("/workspace/./out/a.txt", None, "out/a.txt"),
        ("out/a.txt", Some("report.txt"), "report.txt"),
    ] {
        let kept = room.attach(path, name).await.unwrap();
        assert_eq!((&*kept.name, kept.size, &*kept.sha256), (called, 3, hash));
        let Ok(Event::AttemptArtifact(e)) = room.told.try_recv() else {
            panic!("it is a fact")
        };
        assert_eq!((&*e.name, &*e.sha256), (called, hash));
        assert_eq!(e.media_type.as_deref(), Some("text/plain"));
    }
    assert_eq!(room.shelf.0.lock().unwrap()[hash], b"abc");
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "abc").unwrap();
    let pit = Arc::new(Pit::default());
    let keeper = Keeper::new(lease(), Arc::<Pit>::clone(&pit) as _);
    let (tools, _people, _told) = opened_with(dir.path(), None, keeper.clone());
    let file = AttachArtifact {
        path: "a".to_owned(),
        name: None,
    };
    tokio::select! {
        kept = Attempt::attach(&*tools.0, file) => panic!("{kept:?}"),
        () = pit.0.notified() => {}
    }
    keeper.admit(ARTIFACTS_BYTES_MAX).unwrap();
}

#[tokio::test]
async fn nothing_outside_of_the_workspace_is_kept() {
    let room = Room::new(None);
    room.write("a", "abc");
    let ws = room.dir.path();
    for (target, link) in [
        ("/etc/passwd", "abs"),
        ("../../etc/passwd", "out"),
        ("/etc", "dir"),
    ] {
        std::os::unix::fs::symlink(target, ws.join(link)).unwrap();
    }
    for path in ["abs", "out", "dir/passwd"] {
        let problem = room.attach(path, None).await.unwrap_err();
        assert!(problem.contains("leads out of the workspace"), "{problem}");
    }
    let above = format!("../{}/a", ws.file_name().unwrap().to_str().unwrap());
    for path in ["/etc/passwd", &above, "..", "/workspace/../a", "/", "."] {
        let problem = room.attach(path, Some("n")).await.unwrap_err();
        assert!(
            problem.starts_with("path: ") && problem.contains("below /workspace"),
            "{path}: {problem}"
        );
    }
    for name in [
        "../a",
        "/a",
        "a/../b",
        "a\u{7}",
        "changes.patch",
        "result.txt",
    ] {
        let problem = room.attach("a", Some(name)).await.unwrap_err();
        assert!(problem.starts_with("name: "), "{name}: {problem}");
    }
    let missing = room.attach("gone", None).await.unwrap_err();
    assert!(missing.starts_with("path: "), "{missing}");
    assert!(room.shelf.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_newest_progress_is_what_is_said() {
    let room = Room::new(None);
    for (percent, message) in [(Some(10.0), "a"), (None, "b")] {
        let message = message.to_owned();
        let progress = ReportProgress { percent, message };
        room.attempt().report(progress).unwrap();
    }
    let said = room.tools.progress().unwrap();
    assert_eq!(said, Progress::new(None, Some("b".into())).unwrap());
    assert_eq!(room.tools.progress(), None);
}

#[tokio::test]
async fn a_result_is_taken_if_it_fits_and_the_last_counts() {
    let schema = r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}"#;
    let room = Room::new(Some(schema));
    let refused = |structured| {
        let refused = room.attempt().complete(complete("s", structured));
        refused.unwrap_err().to_string()
    };
    let missing = refused(None);
    assert!(missing.starts_with("structured: is missing"), "{missing}");
    let wrong = refused(Some(json!({"n": "x"})));
    assert!(
        wrong.contains("structured: does not fit result_schema: at /n"),
        "{wrong}"
    );
    assert_eq!(room.tools.completed(), None);
    for n in [1, 2] {
        let result = complete("done", Some(json!({"n": n})));
        room.attempt().complete(result).unwrap();
    }
    // What is refused takes nothing back.
    refused(Some(json!(7)));
    let completed = Completed {
        result: r#"{"n":2}"#.into(),
        summary: Some("done".into()),
    };
    assert_eq!(room.tools.completed(), Some(completed));
    let plain = Room::new(None);
    plain.attempt().complete(complete("done", None)).unwrap();
    let completed = plain.tools.completed().unwrap();
    assert_eq!((&*completed.result, completed.summary), ("done", None));
}

#[tokio::test]
async fn a_question_waits_for_its_answer() {
    let room = Room::new(None);
    let asking = room.attempt().ask("may I?".to_owned(), false);
    let answering = async {
        while *room.people.waiting().borrow() == 0 {
            tokio::task::yield_now().await;
        }
        room.people.hear(allow(1, "but be quick"));
    };
    let (reply, ()) = tokio::join!(asking, answering);
    let reply = reply.unwrap();
    assert_eq!(reply.answer, Answer::Allow);
    assert_eq!(reply.text.as_deref(), Some("but be quick"));
}

#[tokio::test]
async fn nothing_is_said_after_the_program_has_ended() {
    let mut room = Room::new(None);
    room.write("a", "abc");
    let door = room.tools.door();
    let asking = room.attempt().ask("may I?".to_owned(), false);
    let closing = async {
        while *room.people.waiting().borrow() == 0 {
            tokio::task::yield_now().await;
        }
        room.tools.close();
    };
    let (reply, ()) = tokio::join!(asking, closing);
    assert!(reply.unwrap_err().to_string().contains("too late"));
    let late = ReportProgress {
        percent: None,
        message: "m".into(),
    };
    assert!(room.attempt().report(late).is_err());
    assert!(room.attempt().complete(complete("s", None)).is_err());
    assert!(room.attach("a", None).await.is_err());
    assert!(matches!(
        room.told.try_recv(),
        Ok(Event::ApprovalRequested(_))
    ));
    assert!(room.told.try_recv().is_err(), "nothing else was said");
    // Whoever still holds the server holds no line to the agent.
    drop(room.people);
    assert!(room.told.recv().await.is_none());
    drop(door);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_told_until_when_it_may_run() {
    let room = Room::new(Some("{}"));
    let task = room.attempt().task();
    assert_eq!(task["task"], lease().task.to_string());
    assert_eq!((&task["attempt"], &task["queue"]), (&json!(1), &json!("q")));
    assert_eq!(task["result_schema"], json!({}));
    assert_eq!(
        (&task["deadline"], &task["budget_left"]),
        (&Value::Null, &Value::Null)
    );
    let hour = Instant::now() + Duration::from_secs(3600);
    room.tools.know_deadline(Some(hour));
    let told = room.attempt().task()["deadline"]
        .as_str()
        .unwrap()
        .to_owned();
    let told = conductor_protocol::human::parse_time(&told).unwrap().0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let left = u128::from(told).abs_diff(now.as_millis() + 3_600_000);
    assert!(left < 60_000, "{left} ms off");
}
