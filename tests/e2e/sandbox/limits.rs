//! Limits hold, whoever keeps them.

use conductor_domain::state::Outcome;
use conductor_protocol::terms::{Guarantee, SandboxKind};
use serde_json::json;

use super::Room;

#[tokio::test]
async fn a_file_grows_no_larger_than_it_may() {
    let mut room = Room::open().await;
    let script = "head -c 5000000 /dev/zero > big; wc -c < big; head -c 500000 /dev/zero > small && echo SMALL";
    for (kind, _) in room.offers.clone() {
        let sandbox = json!({"kind": kind, "file_size": "1m"});
        let (_, printed) = room.run(sandbox, script).await;
        assert!(
            printed.contains("1048576\n") && printed.contains("SMALL"),
            "{kind}: {printed}"
        );
    }
}

#[tokio::test]
async fn processes_are_no_more_than_they_may_be() {
    let mut room = Room::open().await;
    let script = "n=0; while [ $n -lt 300 ]; do sleep 60 & n=$((n+1)); echo $n > count; done; wait";
    for (kind, _) in room.offers.clone() {
        let sandbox = json!({"kind": kind, "processes": 40});
        let id = room.submit(sandbox, script).await;
        assert_eq!(room.story.outcome(id).await, Outcome::Failed, "{kind}");
        eprintln!("{kind}: {}", room.message(id));
        // A machine that can still run something has not run out of them.
        let (outcome, _) = room.run(json!({"kind": kind}), "true").await;
        assert_eq!(outcome, Outcome::Succeeded, "{kind}");
    }
}

#[tokio::test]
async fn memory_is_no_more_than_it_may_be() {
    let mut room = Room::open().await;
    // Half of it is read back: memory that is really used.
    let script = "head -c 300000000 /dev/zero | tail -c 200000000 | wc -c";
    for (kind, guarantees) in room.offers.clone() {
        let asked = json!({"kind": kind, "memory": "100m"});
        let script = format!("set -o pipefail; {script}");
        let mut task = json!({"run": {"command": ["bash", "-c", script]}});
        task["sandbox"] = asked;
        let id = room.system.submit(task).await;
        assert_eq!(room.story.outcome(id).await, Outcome::Failed, "{kind}");
        let message = room.message(id);
        eprintln!("{kind}: {message}");
        if guarantees.contains(&Guarantee::MemoryLimited) {
            assert!(
                message.starts_with("oom: it had too little memory"),
                "{kind}: {message}"
            );
        }
        let (outcome, printed) = room
            .run(
                json!({"kind": kind, "memory": "1g"}),
                "head -c 300000000 /dev/zero | tail -c 200000000 | wc -c",
            )
            .await;
        assert_eq!(
            (outcome, printed.as_str()),
            (Outcome::Succeeded, "200000000\n"),
            "{kind}"
        );
    }
    if room.that_promise(Guarantee::MemoryLimited).is_empty() {
        eprintln!("nobody here limits the memory of all processes together");
    }
}

/// Where the kernel hands out control groups, they are what limits: `make cgroups` sees to it that
/// it does.
#[tokio::test]
async fn control_groups_limit_where_there_are_any() {
    let mut room = Room::open().await;
    let must_be = std::env::var_os("CONDUCTOR_TEST_CGROUPS").is_some();
    let kinds = [
        SandboxKind::None,
        SandboxKind::Landlock,
        SandboxKind::Bubblewrap,
    ];
    let offered = room.offers.clone().into_iter();
    let offered: Vec<_> = offered.filter(|(kind, _)| kinds.contains(kind)).collect();
    assert!(offered.len() == kinds.len() || !must_be, "{offered:?}");
    for (kind, guarantees) in offered {
        let asked = json!({"kind": kind, "memory": "100m", "processes": 64, "cpu_millis": 200});
        // Of a fifth of a processor a second of work takes five.
        let work = "import time\nt, c = time.monotonic(), time.process_time()\nwhile time.process_time() < c + 1: pass\nprint(int(time.monotonic() - t))";
        let id = room.submit(asked, &format!("python3 -c '{work}'")).await;
        assert_eq!(room.story.outcome(id).await, Outcome::Succeeded, "{kind}");
        let printed = room.system.cli(&["task", "logs", &id.to_string()]).await;
        let seconds: u64 = printed.ok().trim().parse().unwrap();
        let limits = room.in_use(id).limits;
        eprintln!("{kind}: limited by {limits:?}, a second of work took {seconds} s");
        let by_group = limits.as_deref() == Some("cgroup");
        assert!(by_group || !must_be, "{kind}: {limits:?}");
        let promises = [Guarantee::MemoryLimited, Guarantee::ProcessesLimited];
        let all = promises.iter().all(|p| guarantees.contains(p));
        let promises_nothing = kind == SandboxKind::None;
        assert!(
            all || promises_nothing || !must_be,
            "{kind}: {guarantees:?}"
        );
        if must_be {
            // The kernel counts in slices: a little less than five.
            assert!(seconds >= 3, "{kind}: {seconds} s");
        }
    }
}

#[tokio::test]
async fn limits_that_nobody_asked_for_are_the_usual_ones() {
    let mut room = Room::open().await;
    for (kind, _) in room.offers.clone() {
        let printed = room.prints(kind, "ulimit -n; ulimit -f; ulimit -c").await;
        let lines: Vec<&str> = printed.lines().collect();
        if kind == SandboxKind::None {
            assert_eq!(lines[1], "unlimited");
        } else {
            // Blocks of 512 bytes.
            assert_eq!(lines, ["4096", "8388608", "0"], "{kind}");
        }
    }
}

/// One that goes on writing is ended, and one that is faster than any look does not count.
#[tokio::test]
async fn files_take_no_more_together_than_they_may() {
    let mut room = Room::open().await;
    // Where nobody is asked for a reason, no file is too large; all of them are.
    let write =
        "n=0; while [ $n -lt 40 ]; do n=$((n+1)); head -c 1000000 /dev/zero > $HOME/$n; done";
    for (kind, _) in room.offers.clone() {
        let asked = json!({"kind": kind, "disk": "20m"});
        for then in ["sleep 600", "true"] {
            let script = format!("{write}; {then}");
            let id = room.submit(asked.clone(), &script).await;
            assert_eq!(room.story.outcome(id).await, Outcome::Failed, "{kind}");
            let message = room.message(id);
            assert!(
                message.starts_with("failed: disk: its files took more than 20"),
                "{kind}: {message}"
            );
            assert_eq!(room.in_use(id).disk.as_deref(), Some("watched"), "{kind}");
        }
        let asked = json!({"kind": kind, "disk": "100m"});
        let (outcome, _) = room.run(asked, write).await;
        assert_eq!(outcome, Outcome::Succeeded, "{kind}");
    }
}
