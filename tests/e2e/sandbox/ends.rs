//! Whatever ends an attempt, and whatever it does against that, nothing of it is left.

use conductor_domain::state::Outcome;
use conductor_harness::until;
use conductor_protocol::terms::{Guarantee, SandboxKind};
use serde_json::json;

use super::Room;

/// Processes of the machine that run `sleep` for so many seconds.
fn sleepers(seconds: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if cmdline == format!("sleep\0{seconds}\0").as_bytes() {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// What runs on the machine.
fn commands() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok())
        .map(|cmdline| cmdline.replace('\0', " "))
        .collect()
}

pub(super) async fn sleeping(seconds: u32, n: usize) {
    until(|| match sleepers(seconds).len() {
        there if there >= n => Ok(()),
        there => Err(format!("{n} processes, not {there}")),
    })
    .await;
}

pub(super) async fn none_left(seconds: u32, what: &str) {
    until(|| match sleepers(seconds) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("the end of {left:?} ({what})")),
    })
    .await;
}

/// Four that would outlive their parent: in the background, in a session of its own, one that lost
/// its parent, and one without any of its environment.
pub(super) fn leave(seconds: u32) -> String {
    let s = format!("sleep {seconds}");
    format!("{s} & setsid {s} & (setsid sh -c '{s} & exit' &); env -i setsid {s} & sleep 0.2; ")
}

#[tokio::test]
async fn test_1_nothing_is_left_after_success_failure_crash_cancel_or_timeout() {
    let mut room = Room::open().await;
    for (n, (kind, _)) in room.offers.clone().into_iter().enumerate() {
        let base = 31_000 + 10 * n as u32;
        let ends = [
            ("exit 0", Outcome::Succeeded),
            ("exit 3", Outcome::Failed),
            ("kill -9 $$", Outcome::Failed),
            ("sleep 300", Outcome::Cancelled),
            ("trap '' TERM; while :; do sleep 1; done", Outcome::TimedOut),
        ];
        for (i, (end, expected)) in ends.into_iter().enumerate() {
            let seconds = base + i as u32;
            let mut task = conductor_harness::system::sh(&format!("{}{end}", leave(seconds)));
            task["sandbox"] = json!({"kind": kind});
            if expected == Outcome::TimedOut {
                task["timeouts"] = json!({"run": "1500ms"});
            }
            let id = room.system.submit(task).await;
            if expected == Outcome::Cancelled {
                sleeping(seconds, 4).await;
                room.system
                    .cli(&["task", "cancel", &id.to_string()])
                    .await
                    .ok();
            }
            assert_eq!(room.story.outcome(id).await, expected, "{kind}: {end}");
            none_left(seconds, &format!("{kind}: {end}")).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_left_when_the_agent_is_killed() {
    let mut room = Room::open().await;
    let offers = room.offers.clone();
    for (n, (kind, _)) in offers.iter().enumerate() {
        let script = format!("{}sleep 300", leave(32_000 + n as u32));
        room.submit(json!({"kind": kind}), &script).await;
    }
    for (n, _) in offers.iter().enumerate() {
        sleeping(32_000 + n as u32, 4).await;
    }
    // Nobody starts it again.
    room.system.process("up").kill9();
    for (n, (kind, _)) in offers.iter().enumerate() {
        none_left(32_000 + n as u32, kind.as_str()).await;
    }
}

#[tokio::test]
async fn a_program_that_works_against_its_reaper_leaves_nothing_either() {
    let mut room = Room::open().await;
    let kinds = room.that_promise(Guarantee::NothingLeft);
    for (n, kind) in kinds.iter().enumerate() {
        let seconds = 33_000 + n as u32;
        // In containers the reaper is the first process, which nobody inside can kill.
        let script = format!("{}kill -9 $PPID; exec sleep 2", leave(seconds));
        let (_, printed) = room.run(json!({"kind": kind}), &script).await;
        none_left(seconds, &format!("{kind}, killed: {printed}")).await;
    }
    // One that is stopped can do nothing, and its agent cannot tell it.
    for (n, kind) in kinds.iter().enumerate() {
        let seconds = 33_100 + n as u32;
        let (leave, last) = (leave(seconds), seconds + 50);
        let script = format!("{leave}kill -STOP $PPID; exec sleep {last}");
        room.submit(json!({"kind": kind}), &script).await;
        sleeping(last, 1).await;
    }
    room.system.process("up").kill9();
    for (n, kind) in kinds.iter().enumerate() {
        none_left(33_100 + n as u32, &format!("{kind}, stopped")).await;
        none_left(33_150 + n as u32, &format!("{kind}, stopped")).await;
    }
}

#[tokio::test]
async fn without_a_sandbox_what_is_left_is_ended_when_the_agent_comes_back() {
    let mut room = Room::open().await;
    let leave = leave(35_000).replace("env -i ", "");
    let script = format!("{leave}kill -STOP $PPID; exec sleep 35050");
    let mut task = conductor_harness::system::sh(&script);
    task["retry"] = json!({"max_attempts": 1});
    room.system.submit(task).await;
    sleeping(35_050, 1).await;
    let dir = room.system.dir.path().display().to_string();
    let reapers = || {
        commands()
            .into_iter()
            .filter(|c| c.contains("__reaper run") && c.contains(&dir))
            .count()
    };
    room.system.process("up").kill9();
    // The kernel wakes and hangs up on a reaper whose parent ended, so that it may be gone by now;
    // what it kept is not.
    assert!(!sleepers(35_050).is_empty());
    room.system.start_up(&["--agents", "1"]).await;
    none_left(35_000, "swept").await;
    none_left(35_050, "swept").await;
    until(|| match reapers() {
        0 => Ok(()),
        n => Err(format!("the end of {n} reapers")),
    })
    .await;
}

#[tokio::test]
async fn a_stopped_reaper_does_not_keep_an_attempt_going() {
    let mut room = Room::open().await;
    if !room.has(SandboxKind::Bubblewrap) {
        eprintln!("bubblewrap does not work here");
        return;
    }
    let script = format!("{}kill -STOP $PPID; exec sleep 300", leave(34_000));
    let mut task = conductor_harness::system::sh(&script);
    task["sandbox"] = "bubblewrap".into();
    task["timeouts"] = json!({"run": "1s"});
    let id = room.system.submit(task).await;
    assert_eq!(room.story.outcome(id).await, Outcome::TimedOut);
    none_left(34_000, "stopped").await;
}
