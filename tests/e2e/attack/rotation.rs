//! Every credential can be replaced while everything runs: new ones are written, what uses the old
//! ones is cut off and is back with the new, and nothing is lost or done twice.

use std::path::Path;
use std::sync::Arc;

use conductor_access::Credentials;
use conductor_access::keyring::STANDING;
use conductor_client::Submitter;
use conductor_domain::state::Outcome;
use conductor_harness::system::sh;
use conductor_harness::{Story, until};
use conductor_protocol::TaskId;
use conductor_protocol::subject::Role;
use conductor_protocol::submission::Submission;
use serde_json::{Value, json};

use super::attacker::Attacker;
use super::clients::connect_as;
use super::field::Field;

/// Which terms the leaders have.
fn terms(story: &Story) -> Option<[u64; 2]> {
    let terms = [Role::Orchestrator, Role::Scheduler].map(|role| story.state().epoch(role));
    terms.iter().all(|epoch| *epoch > 0).then_some(terms)
}

async fn submit(submitter: &Submitter, n: usize, into: &mut Vec<TaskId>) {
    let queue = "default".parse().unwrap();
    for _ in 0..n {
        let mut task = sh("true");
        let id = conductor_harness::system::new_id();
        task["id"] = id.to_string().into();
        let task: Submission = serde_json::from_value(task).unwrap();
        submitter.submit(&queue, &task).await.unwrap();
        into.push(id);
    }
}

/// Why servers have closed links, with the names of those they were of.
fn closed(field: &Field) -> Vec<(String, String)> {
    let pages = field.monitor("/connz?state=closed&auth=true");
    let pages = pages.iter().map(|page| serde_json::from_str(page).unwrap());
    let links = |page: Value| page["connections"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    pages
        .flat_map(links)
        .map(|link| (text(&link["name"]), text(&link["reason"])))
        .collect()
}

#[tokio::test]
async fn every_credential_is_rotated_while_tasks_run() {
    rotated(Field::up().await).await;
}

#[tokio::test]
async fn every_credential_is_rotated_on_three_servers() {
    rotated(Box::pin(Field::cluster()).await).await;
}

async fn submitter(field: &Field, credentials: &Path) -> Submitter {
    Submitter::new(Arc::new(connect_as(field, credentials).await))
}

async fn rotated(mut field: Field) {
    let mut story = field.system.story().await;
    let before = story.until("both leaders", terms).await;
    let of = |field: &Field, who: &str| Credentials::read(&field.key(who)).unwrap();
    let old = STANDING.map(|who| of(&field, who));
    let ada = field.grant("ada", &["--queue", "default"]).await;
    let ada = Credentials::read(&ada).unwrap();
    let submitter = submitter(&field, &field.key("client")).await;
    // Nothing of hers is replaced.
    let eve = field.grant("eve", &["--queue", "default"]).await;
    let unmeant = self::submitter(&field, &eve).await;
    let mut tasks = vec![field.system.submit(field.held_by_a2()).await];
    story.told(tasks[0], "attempt.started").await;
    submit(&submitter, 10, &mut tasks).await;
    let keys = field.keys_dir();
    for make in ["init", "rotate"] {
        let made = ["access", make, "--keys", &keys];
        field.system.cli(&made).await.ok();
    }
    // Both are good now, so that new ones can be handed out first.
    for (who, old) in STANDING.iter().zip(&old) {
        assert_ne!(&of(&field, who).jwt, &old.jwt, "{who}");
        assert!(Attacker::connect(&field.url, old).is_ok(), "{who}");
    }
    submit(&submitter, 10, &mut tasks).await;
    let revoke = ["access", "revoke", "ada", "--keys", &keys];
    let revoke = [&revoke[..], &STANDING].concat();
    let revoked = field.system.cli(&revoke).await.ok();
    assert!(
        revoked.contains("services") && revoked.contains("ada"),
        "{revoked}"
    );
    submit(&submitter, 10, &mut tasks).await;
    submit(&unmeant, 10, &mut tasks).await;
    field.release();
    for task in &tasks {
        let ended = story.ended(*task).await;
        assert_eq!(ended.outcome(), Some(Outcome::Succeeded), "{task}");
        assert_eq!(ended.attempts, 1, "{task}: no attempt was lost");
    }
    for (who, old) in STANDING.iter().zip(&old).chain([(&"ada", &ada)]) {
        assert!(Attacker::connect(&field.url, old).is_err(), "{who}");
    }
    for who in STANDING {
        assert!(
            Attacker::connect(&field.url, &of(&field, who)).is_ok(),
            "{who}"
        );
    }
    // Whoever had a link with an old one has been cut off, and nobody's term has ended by it.
    // Agents were cut off, too: they hear nothing over a link that they had before.
    for (who, why) in [
        ("conductor-orchestrator", "Revoked"),
        ("conductor-scheduler", "Revoked"),
        ("conductor-issuer", "Revoked"),
        ("client", "Revoked"),
        ("client", "Kicked"),
        ("conductor-agent", "Kicked"),
    ] {
        until(|| {
            let closed = closed(&field);
            let is_cut = |(name, reason): &(String, String)| name == who && reason.contains(why);
            closed
                .iter()
                .any(is_cut)
                .then_some(())
                .ok_or(format!("{who}: {closed:?}"))
        })
        .await;
    }
    assert_eq!(terms(&story), Some(before));
    // The issuer answers over its new link: another agent is let in, and works.
    field.start_agent("a3").await;
    let mut on_a3 = sh("true");
    on_a3["labels"] = json!({"name": "a3"});
    let on_a3 = field.system.submit(on_a3).await;
    assert_eq!(story.outcome(on_a3).await, Outcome::Succeeded);
    field.system.assert_replay_agrees().await;
    // Servers that begin later let nobody in either.
    let later = field.another_server();
    for (who, old) in STANDING.iter().zip(&old).chain([(&"ada", &ada)]) {
        assert!(Attacker::connect(&later.url(), old).is_err(), "{who}");
    }
    let services = of(&field, "services");
    assert!(Attacker::connect(&later.url(), &services).is_ok());
}

#[tokio::test]
async fn names_that_have_no_credentials_are_told() {
    let field = Field::up().await;
    let keys = field.keys_dir();
    for (args, says) in [
        (["access", "rotate", "ada"], "none of admin, services"),
        (
            ["access", "revoke", "ada"],
            "no credentials were made for \"ada\"",
        ),
    ] {
        let ran = field
            .system
            .cli(&[&args[..], &["--keys", &keys]].concat())
            .await;
        assert!(ran.code != 0 && ran.stderr.contains(says), "{}", ran.stderr);
    }
    let grant = [
        "access",
        "grant",
        "services",
        "--keys",
        &keys,
        "--out",
        "/dev/null",
    ];
    let ran = field.system.cli(&grant).await;
    assert!(ran.stderr.contains("take another name"), "{}", ran.stderr);
}
