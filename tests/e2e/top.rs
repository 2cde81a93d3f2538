//! `conductor top`, as scripts and as people at a terminal see it.

use conductor_harness::system::{cell, sh};
use conductor_harness::{PATIENCE, Story, System, binary, until, until_asked};
use conductor_protocol::event::{Event, LogFormat};
use conductor_protocol::frame::{self, FrameHead};
use conductor_protocol::subject::{Role, Subject};
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
        "cancelled": 0, "asking": 0,
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

/// Runs it on a terminal of its own. Once it has drawn, says so by a file and ends it as it is
/// told; then prints how it ended, whether the terminal is as it was and the cursor is back, and
/// what was said after that.
const TERMINAL: &str = r#"
import fcntl, os, pty, signal, struct, sys, termios
how, mark, args = sys.argv[1], sys.argv[2], sys.argv[3:]
master, slave = pty.openpty()
before = termios.tcgetattr(slave)
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for stream in range(3):
        os.dup2(slave, stream)
    os.execv(args[0], args)
drawn = b""
while b"last failures" not in drawn or b"a1" not in drawn:
    drawn += os.read(master, 65536)
open(mark, "w").close()
if how == "TERM":
    os.kill(pid, signal.SIGTERM)
else:
    os.write(master, how.encode())
while b"\x1b[?1049l" not in drawn:
    drawn += os.read(master, 65536)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
same = termios.tcgetattr(slave) == before
os.set_blocking(master, False)
try:
    drawn += os.read(master, 65536)
except BlockingIOError:
    pass
after = drawn.split(b"\x1b[?1049l", 1)[1].decode()
print(f"code {code}, same {same}, cursor {drawn.rfind(b'?25h') > drawn.rfind(b'?25l')}")
print(after.replace("\x1b[?25h", ""))
"#;

/// What [`TERMINAL`] prints, with what is done to the system while it draws.
async fn at_a_terminal(system: &System, how: &str, then: impl Future<Output = ()>) -> String {
    let mark = system.dir.path().join(format!("drawn-{}", how.len()));
    let mut python = tokio::process::Command::new("python3");
    python.args(["-c", TERMINAL, how]).arg(&mark);
    python.arg(binary::conductor());
    python.args(["--nats-url", &system.url, "top", "--interval", "500ms"]);
    python.env("TERM", "xterm-256color").kill_on_drop(true);
    let meanwhile = async {
        until(|| mark.exists().then_some(()).ok_or("it draws".to_owned())).await;
        then.await;
    };
    let ran = tokio::time::timeout(PATIENCE, python.output());
    let (ran, ()) = tokio::join!(ran, meanwhile);
    let ran = ran.expect("it ends").expect("python3 runs");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{how:?}: {errors}");
    std::fs::remove_file(&mark).unwrap();
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[tokio::test]
async fn the_terminal_is_given_back_however_it_ends() {
    let (system, _) = busy().await;
    for how in ["q", "\u{1b}", "\u{3}", "TERM"] {
        let said = at_a_terminal(&system, how, async {}).await;
        assert_eq!(said.trim_end(), "code 0, same True, cursor True", "{how:?}");
    }
    // A log that goes beyond what this software knows ends it with an error.
    let epoch = leading(system.story().await).await;
    let newer = Event::from(LogFormat { format: 999 }).encode();
    let frame = frame::join(FrameHead::epoch(epoch), &[newer]);
    let raised = async {
        let subject = Subject::Orchestrator.render(&cell());
        system.append(&subject, frame).await;
    };
    let said = at_a_terminal(&system, "p", raised).await;
    assert!(
        said.starts_with("code 1, same True, cursor True\n"),
        "{said}"
    );
    assert!(
        said.contains("error: record") && said.contains("use a newer conductor"),
        "{said}"
    );
}

/// The epoch of the orchestrator.
async fn leading(mut story: Story) -> u64 {
    let epoch = |s: &Story| s.state().leaders.get(&Role::Orchestrator).map(|l| l.epoch);
    story.until("an orchestrator", epoch).await
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
