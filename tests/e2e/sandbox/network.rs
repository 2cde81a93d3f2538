//! How far networks go is the operator's to say.

use conductor_domain::state::Outcome;
use conductor_harness::system::sh;
use conductor_harness::{Story, System};
use conductor_protocol::terms::{Guarantee, Reach, SandboxKind};
use serde_json::json;

use super::Room;

#[tokio::test]
async fn no_task_reaches_further_than_its_agent_allows() {
    let room = Room::open().await;
    if !room.has(SandboxKind::Bubblewrap) {
        eprintln!("bubblewrap does not work here");
        return;
    }
    let mut system = System::bare().await;
    let closed = ["--sandbox", "auto", "--network-max", "hosts"];
    system
        .start_up(&[&["--agents", "1"], &closed[..]].concat())
        .await;
    let mut story = system.story().await;
    let agents = |s: &Story| s.state().agents.values().next().cloned();
    let joined = story.until("an agent", agents).await.joined;
    assert_eq!(joined.network_max, Some(Reach::Hosts));
    let is_closed = |g: &[Guarantee]| g.contains(&Guarantee::NetworkClosed);
    assert!(joined.sandboxes.values().all(|o| is_closed(&o.guarantees)));
    let mut open = sh("true");
    open["sandbox"] = json!({"network": "full"});
    let open = system.submit(open).await;
    let mut hosts = sh("true");
    hosts["sandbox"] = json!({"network": {"hosts": ["example.org"]}});
    let hosts = system.submit(hosts).await;
    assert_eq!(story.outcome(hosts).await, Outcome::Succeeded);
    let why = system.cli(&["why", &open.to_string()]).await.ok();
    assert!(
        why.contains("lets a task have the network full; the most is hosts"),
        "{why}"
    );
    let agents = system.cli(&["agent", "list", "-o", "json"]).await.json();
    assert_eq!(agents[0]["network_max"], "hosts");
}

#[tokio::test]
async fn an_agent_that_cannot_keep_networks_closed_does_not_start() {
    let mut system = System::bare().await;
    let args = ["agent", "--name", "a1", "--sandbox", "none"];
    let closed = ["--network-max", "none"];
    system.start("agent", &[&args[..], &closed[..]].concat());
    let status = system.process("agent").ended().await;
    let said = system.process("agent").said();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("--network-max none needs a sandbox that promises network_closed"),
        "{said}"
    );
}
