//! `conductor top`, as scripts and as people at a terminal see it.

use conductor_harness::system::sh;
use conductor_harness::{System, binary, until_asked};
use serde_json::{Value, json};

/// A system with a task that succeeded, one that failed, one that runs and one that waits.
async fn busy() -> (System, conductor_protocol::TaskId) {
    let system = System::up_with(&["--agents", "1"]).await;
    let mut story = system.story().await;
    let (done, failed) = (
        system.submit(sh("true")).await,
        system.submit(sh("exit 3")).await,
    );
    let runs = system.submit(sh("sleep 300")).await;
    let mut later = sh("true");
    later["delay"] = json!("1h");
    let waits = system.submit(later).await;
    story.ended(done).await;
    story.ended(failed).await;
    story.told(runs, "attempt.started").await;
    story.told(waits, "task.accepted").await;
    (system, failed)
}

#[tokio::test]
async fn one_picture_for_scripts() {
    let (system, failed) = busy().await;
    let picture = system.cli(&["top", "--once", "-o", "json"]).await.json();
    let tasks = json!({
        "undecided": 0, "accepted": 4, "succeeded": 1, "failed": 1, "timed_out": 0,
        "cancelled": 0,
    });
    assert_eq!(picture["tasks"], tasks, "{picture:#}");
    let queues = json!([{
        "queue": "default", "paused": false, "waiting": 1, "running": 1,
        "oldest_ready_ms": null,
    }]);
    assert_eq!(picture["queues"], queues);
    let agent = &picture["agents"][0];
    assert_eq!(
        [&agent["name"], &agent["status"]],
        [&json!("a1"), &json!("up")]
    );
    assert_eq!([&agent["used"], &agent["slots"]], [&json!(1), &json!(4)]);
    let failure = &picture["failures"][0];
    let id = failed.to_string();
    assert_eq!(picture["failures"].as_array().unwrap().len(), 1);
    for (field, want) in [
        ("task", json!(id)),
        ("queue", json!("default")),
        ("class", json!("failed")),
        ("agent", json!("a1")),
        ("attempt", json!(1)),
        ("ends_task", json!(true)),
    ] {
        assert_eq!(failure[field], want, "{field} in {failure:#}");
    }
    assert_eq!(picture["lag"], 0);
    assert_eq!(picture["problem"], Value::Null);
    for role in ["orchestrator", "scheduler"] {
        assert!(picture["leaders"][role]["epoch"].as_u64() > Some(0));
    }
    let text = system.cli(&["top"]).await.ok();
    assert!(text.contains("4 accepted, 1 succeeded, 1 failed"), "{text}");
    assert!(
        text.contains("\ndefault  -       1        1        -\n"),
        "{text}"
    );
    assert!(text.contains("\na1     up      1/4"), "{text}");
    assert!(
        text.contains(&format!("{id}  default  failed  a1     1    task")),
        "{text}"
    );
}

#[tokio::test]
async fn rates_are_of_the_last_minute() {
    let (system, _) = busy().await;
    // The second under way counts when it is over.
    let rates = until_asked(async || {
        let picture = system.cli(&["top", "--once", "-o", "json"]).await.json();
        let rates = picture["throughput"].clone();
        let ended = rates["ended_by_second"].as_array().unwrap();
        let ended: u64 = ended.iter().filter_map(Value::as_u64).sum();
        let is_all = ended == 2 && rates["accepted_per_s"] == json!(4.0 / 60.0);
        if is_all {
            Ok(rates)
        } else {
            Err(format!("{rates:#}"))
        }
    })
    .await;
    assert_eq!(rates["over_s"], 60);
    assert_eq!(rates["ended_by_second"].as_array().unwrap().len(), 60);
    assert_eq!(rates["started_per_s"], json!(3.0 / 60.0));
    assert_eq!(rates["ended_per_s"], json!(2.0 / 60.0));
}

/// Runs it on a terminal of its own, ends it as it is told once it has drawn, and prints what it
/// drew, how it ended, and whether the terminal is as it was.
const TERMINAL: &str = r#"
import os, pty, signal, sys, termios, time
how, args = sys.argv[1], sys.argv[2:]
master, slave = pty.openpty()
before = termios.tcgetattr(slave)
termios.tcsetwinsize(slave, (40, 120))
pid = os.fork()
if pid == 0:
    os.login_tty(slave)
    os.execv(args[0], args)
drawn = b""
while b"last failures" not in drawn or b"a1" not in drawn:
    drawn += os.read(master, 65536)
if how == "TERM":
    os.kill(pid, signal.SIGTERM)
else:
    os.write(master, how.encode())
while b"\x1b[?1049l" not in drawn:
    drawn += os.read(master, 65536)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
same = termios.tcgetattr(slave) == before
print(f"code {code}, same {same}, cursor {drawn.rfind(b'?25h') > drawn.rfind(b'?25l')}")
"#;

#[tokio::test]
async fn the_terminal_is_given_back_however_it_ends() {
    let (system, _) = busy().await;
    for how in ["q", "\u{1b}", "\u{3}", "TERM"] {
        let mut python = tokio::process::Command::new("python3");
        python.args(["-c", TERMINAL, how]);
        python.arg(binary::conductor());
        python.args(["--nats-url", &system.url, "top", "--interval", "500ms"]);
        python.env("TERM", "xterm-256color").kill_on_drop(true);
        let ran = tokio::time::timeout(conductor_harness::PATIENCE, python.output());
        let ran = ran.await.expect("it ends").expect("python3 runs");
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(
            said, "code 0, same True, cursor True\n",
            "{how:?}: {errors}"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let system = System::bare().await;
    let often = system.cli(&["top", "--interval", "10ms"]).await;
    assert_eq!(often.code, 2, "{often:?}");
    assert!(
        often.stderr.contains("is not between 500ms and 1m"),
        "{often:?}"
    );
    let nothing = system.cli(&["top"]).await;
    assert_eq!(nothing.code, 7, "{nothing:?}");
    assert!(
        nothing.stderr.contains("hint: is this the right cell"),
        "{nothing:?}"
    );
}
