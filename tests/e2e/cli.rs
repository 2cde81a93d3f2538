//! What the command line prints: help, tables and errors, as people see them.

use conductor_harness::System;
use conductor_harness::process::run;
use conductor_harness::system::sh;
use expect_test::{expect, expect_file};
use serde_json::json;

const COMMANDS: [&[&str]; 33] = [
    &[],
    &["up"],
    &["orchestrator"],
    &["scheduler"],
    &["projector"],
    &["agent"],
    &["agent", "list"],
    &["demo"],
    &["submit"],
    &["task"],
    &["task", "list"],
    &["task", "show"],
    &["task", "watch"],
    &["task", "logs"],
    &["task", "cancel"],
    &["task", "retry"],
    &["task", "tell"],
    &["approvals"],
    &["approvals", "approve"],
    &["approvals", "deny"],
    &["queue"],
    &["workspace"],
    &["workspace", "remove"],
    &["workspace", "release"],
    &["log", "tail"],
    &["top"],
    &["replay"],
    &["config"],
    &["mcp"],
    &["watch-folder"],
    &["doctor"],
    &["why"],
    &["completions"],
];

#[tokio::test]
async fn help() {
    let mut all = String::new();
    for command in COMMANDS {
        let mut args: Vec<String> = command.iter().map(|a| (*a).to_owned()).collect();
        args.push("--help".into());
        let text = run(&args, &[], b"").await.ok();
        // Every command repeats these: once is enough to read.
        let own = if command.is_empty() {
            &text
        } else {
            before_common_options(&text)
        };
        all += &format!("$ conductor {}\n{}\n\n", args.join(" "), own.trim_end());
    }
    expect_file!["cli-help.txt"].assert_eq(&all);
}

fn before_common_options(text: &str) -> &str {
    let (own, _) = text
        .split_once("Options of every command:")
        .expect("they come last");
    own
}

/// Replaces what differs from run to run.
fn steady(text: &str) -> String {
    let mut out = Vec::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split(' ').map(steady_word).collect();
        while words.last().is_some_and(String::is_empty) {
            words.pop();
        }
        out.push(words.join(" "));
    }
    out.join("\n") + "\n"
}

fn steady_word(word: &str) -> String {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_hex = bare.len() == 64 && bare.chars().all(|c| c.is_ascii_hexdigit());
    let is_id = bare.len() == 36 && bare.matches('-').count() == 4;
    let is_time = bare.len() >= 12 && bare.matches(':').count() == 2 && bare.contains('.');
    let shown = match (is_hex, is_id, is_time) {
        (true, ..) => "<digest>",
        (_, true, _) => "<id>",
        (.., true) => "<time>",
        _ => return word.to_owned(),
    };
    word.replace(bare, shown)
}

#[tokio::test]
async fn tables() {
    let system = System::up_with(&["--agents", "1"]).await;
    // Where the first task stands in the log is shown: behind its agent.
    system.wait_ready(1).await;
    let mut story = system.story().await;
    let mut hello = sh("echo hi");
    hello["name"] = json!("hello");
    let id = system.submit(hello).await;
    story.ended(id).await;
    let mut later = sh("true");
    later["name"] = json!("later");
    later["delay"] = json!("1h");
    let later = system.submit(later).await;
    story.told(later, "task.accepted").await;
    let mut seen = String::new();
    for args in [
        vec!["task", "list", "--all"],
        vec!["task", "show", "hello"],
        vec!["agent", "list"],
        vec!["queue", "list"],
        vec!["log", "tail", "-n", "4"],
    ] {
        let text = system.cli(&args).await.ok();
        seen += &format!("$ conductor {}\n{}\n", args.join(" "), steady(&text));
    }
    let host = system.cli(&["agent", "list", "-o", "json"]).await.json();
    seen = seen.replace(host[0]["host"].as_str().unwrap(), "<host>");
    let trace = conductor_protocol::TraceContext::of(id, None).trace_hex();
    seen = seen.replace(&trace, "<trace>");
    expect_file!["cli-tables.txt"].assert_eq(&seen);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let system = System::up().await;
    let missing = system.cli(&["task", "show", "nothing-of-that-name"]).await;
    assert_eq!(missing.code, 3);
    expect![[r#"
        error: there is no task "nothing-of-that-name"
        hint: `conductor task list --all` shows those there are
    "#]]
    .assert_eq(&missing.stderr);
    let empty = system.cli(&["submit"]).await;
    assert_eq!(empty.code, 2);
    expect![[r#"
        error: nothing to submit
        hint: conductor submit -- sh -c 'echo hi', or -f tasks.yaml, or --claude PROMPT
    "#]]
    .assert_eq(&empty.stderr);
    let bad = system
        .cli_with(&["submit", "-f", "-"], b"run: {command: \"make test\"}")
        .await;
    assert_eq!(bad.code, 2);
    expect![[r#"
        error: nothing was submitted:
          standard input, task 1: run.command: one text is not an argument list; for a shell line write ["sh","-c","…"]; expected a list of arguments or an object {argv, env, stdin, cwd}
    "#]]
    .assert_eq(&bad.stderr);
    let asof = system.cli(&["replay", "--as-of", "yesterday"]).await;
    assert_eq!(asof.code, 2);
    expect![[r#"
        error: --as-of "yesterday" is neither a sequence nor an RFC 3339 time
    "#]]
    .assert_eq(&asof.stderr);
}

#[tokio::test]
async fn every_format_holds_the_same() {
    let system = System::up().await;
    let mut story = system.story().await;
    for _ in 0..2 {
        let id = system.submit(sh("true")).await;
        story.ended(id).await;
    }
    let json = system
        .cli(&["task", "list", "--all", "-o", "json"])
        .await
        .json();
    let lines = system
        .cli(&["task", "list", "--all", "-o", "jsonl"])
        .await
        .ok();
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(json, serde_json::Value::from(lines));
    let yaml = system
        .cli(&["task", "list", "--all", "-o", "yaml"])
        .await
        .ok();
    let yaml: serde_json::Value = serde_yaml_ng::from_str(&yaml).unwrap();
    assert_eq!(json, yaml);
    let script = system.cli(&["completions", "bash"]).await.ok();
    assert!(script.contains("_conductor"));
}
