//! A flipped bit in a block file: JetStream may lose records; Conductor must say which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_domain::{Record, State, fold, record};
use conductor_eventlog::{Append, EventLog};
use conductor_harness::process::Ran;
use conductor_harness::system::cell;
use serde_json::{Value, json};

use crate::field::Field;
use crate::ground::Topology;
use crate::run::Scene;
use crate::{checker, wire};
use conductor_simulation::random::Random;

const SUBMIT: &str = "conductor.local.submit.default";
const LOG: &str = "LOG_local";
/// Messages are kept in blocks of this size.
const BLOCK: usize = 8 << 20;

/// Where the bit is, and what the server still has beside it.
#[derive(Clone, Copy, Debug)]
struct Flip {
    what: &'static str,
    place: Place,
    /// Whether the server has to make its index anew from the blocks.
    loses_index: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a record somewhere in the first block.
    FirstBlock,
    /// In the last record.
    LastRecord,
    /// In a record somewhere in the last block.
    LastBlock,
}

/// A log that has not grown for so long is quiet.
const QUIET: Duration = Duration::from_millis(700);
/// How often it is looked whether it is.
const QUIET_TRIES: u32 = 100;

const fn flip(what: &'static str, place: Place, loses_index: bool) -> Flip {
    Flip {
        what,
        place,
        loses_index,
    }
}

/// The last one ends the story: what was acknowledged last is gone, and its sequences are
/// given out again.
const FLIPS: [Flip; 4] = [
    flip("in a record", Place::FirstBlock, false),
    flip("in the last record", Place::LastRecord, false),
    flip("in a full block, index lost", Place::FirstBlock, true),
    flip("in the last block, index lost", Place::LastBlock, true),
];

/// Flips bits, and returns what came of each, and what must not be.
pub(crate) async fn flips(
    scene: &mut Scene,
    topology: Topology,
    random: &mut Random,
) -> (Vec<Value>, Vec<String>) {
    let node = random.below(topology.nodes() as u64) as usize;
    let (mut told, mut problems) = (Vec::new(), Vec::new());
    for flip in FLIPS {
        match one(scene, flip, node, random).await {
            Ok((value, wrong)) => {
                for line in crate::report::flip_lines(&value) {
                    println!("{line}");
                }
                problems.extend(
                    wrong
                        .iter()
                        .map(|w| format!("flipped bit {}: {w}", flip.what)),
                );
                told.push(value);
            }
            Err(e) => problems.push(format!("flipped bit {}: {e}", flip.what)),
        }
    }
    (told, problems)
}

/// Flips one bit and looks what everybody says.
async fn one(
    scene: &mut Scene,
    flip: Flip,
    node: usize,
    random: &mut Random,
) -> Result<(Value, Vec<String>), String> {
    pad(scene).await?;
    let before = checker::read_whole_log(&scene.connection).await?;
    let blocks = blocks(&scene.field.ground.messages_of(node, LOG));
    let block = match flip.place {
        Place::FirstBlock => blocks.first(),
        Place::LastBlock | Place::LastRecord => blocks.last(),
    };
    let block = block.ok_or("there is no block file")?;
    let said_before = said(&scene.field);
    let end_was_lost = said_end_is_lost(&scene.field);
    scene.field.ground.stop(node);
    let victim = flip_in(block, &before, flip.place, random)?;
    if flip.loses_index {
        let index = block.with_file_name("index.db");
        std::fs::remove_file(index).map_err(|e| e.to_string())?;
    }
    scene.field.ground.start_again(&[node]);
    // Whoever is to be asked has come back.
    for _ in 0..100 {
        let answers = scene.connection.ask(Duration::from_secs(1)).await;
        let is_given_up = said_end_is_lost(&scene.field) > end_was_lost;
        if is_given_up || answers.is_ok_and(|a| a.len() == 4) {
            break;
        }
    }
    let mut seen_by = Vec::new();
    let mut wrong = Vec::new();
    // With three, a whole one leads, then the damaged one.
    let nodes = scene.field.ground.nodes.len();
    let leaders = [(node + 1) % nodes, node];
    for leader in leaders.into_iter().skip(usize::from(nodes == 1)) {
        let has_moved = lead(scene, leader).await;
        let (mut seen, problems) = look(scene, &before, flip, (said_before, end_was_lost)).await?;
        wrong.extend(problems.iter().map(|p| format!("led by n{leader}: {p}")));
        seen["leader"] = json!(if has_moved { Some(leader) } else { None });
        seen_by.push(seen);
    }
    let value = json!({
        "what": flip.what, "node": node, "record": victim,
        "last_before": last(&before), "seen": seen_by,
    });
    Ok((value, wrong))
}

/// Makes a node lead the log's stream; whether it does.
async fn lead(scene: &Scene, node: usize) -> bool {
    let urls = scene.field.ground.urls();
    if scene.field.ground.nodes.len() == 1 {
        return true;
    }
    let order = json!({"placement": {"preferred": format!("n{node}")}}).to_string();
    let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{LOG}");
    for _ in 0..5 {
        // One that leads already refuses to be preferred.
        let _ = wire::ask_any(&urls, &subject, order.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let info = wire::ask_any(&urls, &format!("$JS.API.STREAM.INFO.{LOG}"), b"{}").await;
        if info.is_ok_and(|i| i["cluster"]["leader"] == format!("n{node}")) {
            return true;
        }
    }
    false
}

/// What Conductor says.
struct Said {
    replay: Ran,
    replayed: Value,
    live: Ran,
    compared: Value,
    doctor: Ran,
    /// What doctor does not call well.
    not_ok: Vec<Value>,
}

async fn ask(scene: &Scene) -> Said {
    let parse = |ran: &Ran| serde_json::from_str::<Value>(&ran.stdout).unwrap_or_default();
    let replay = scene.cli(&["replay", "-o", "json"]).await;
    let live = scene.cli(&["replay", "--compare-live", "-o", "json"]).await;
    let doctor = scene.cli(&["doctor", "-o", "json"]).await;
    let rows = parse(&doctor).as_array().cloned().unwrap_or_default();
    let is_unwell = |r: &Value| r["verdict"] != "ok" && r["check"] != "durability";
    Said {
        replayed: parse(&replay),
        compared: parse(&live),
        not_ok: rows.into_iter().filter(is_unwell).collect(),
        replay,
        live,
        doctor,
    }
}

/// What the log has lost, by our own reading, and what Conductor says of it.
async fn look(
    scene: &mut Scene,
    before: &BTreeMap<u64, Record>,
    flip: Flip,
    (said_before, end_was_lost): (usize, usize),
) -> Result<(Value, Vec<String>), String> {
    let last_before = last(before);
    let after = checker::read_log(&scene.connection).await?;
    let is_same = |seq: &u64, r: &Record| before.get(seq).is_none_or(|b| b == r);
    let changed = after.iter().filter(|(seq, r)| !is_same(seq, r));
    let changed: Vec<u64> = changed.map(|(seq, _)| *seq).collect();
    let missing = checker::gaps(&after, last(&after).max(last_before));
    let said = ask(scene).await;
    let mut wrong = Vec::new();
    if scene.field.ground.nodes.len() > 1 {
        // Two of three have everything: nothing is lost, and every reader gets it.
        let until = last_before.to_string();
        let audit = scene
            .cli(&["replay", "--as-of", &until, "-o", "json"])
            .await;
        let audit: Value = serde_json::from_str(&audit.stdout).unwrap_or_default();
        if said.replay.code != 0 || audit["digest"] != folded(before) {
            let gaps = &said.replayed["gaps"];
            wrong.push(format!("replay: exit {}, gaps {gaps}", said.replay.code));
        }
        if said.live.code != 0 {
            let (code, live) = (said.live.code, &said.compared["live"]);
            wrong.push(format!("replay --compare-live: exit {code}, {live}"));
        }
    } else {
        let has_lost_end = flip.place == Place::LastBlock;
        if !changed.is_empty() && !has_lost_end {
            wrong.push(format!(
                "records {changed:?} are others, and nobody noticed"
            ));
        }
        // What lies beyond the end, the log alone cannot tell.
        let inside = missing
            .iter()
            .filter(|(from, _)| !has_lost_end || *from <= last(&after));
        judge(&said, &names(inside), flip, &mut wrong);
        if has_lost_end && !scene.says_end_is_lost(end_was_lost).await {
            wrong.push("no replica says that the log has lost its end".to_owned());
        }
        if has_lost_end && !begins_anew(scene).await {
            wrong.push("begun anew, the system does not go on with what there is".to_owned());
        }
    }
    let answers = said.compared["live"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let agree = answers.iter().filter(|a| a["agrees"] == true).count();
    let value = json!({
        "missing": names(missing.iter()), "changed": changed, "last_after": last(&after),
        "replay": {
            "exit": said.replay.code, "gaps": said.replayed["gaps"], "said": said.replay.stderr,
        },
        "compare_live": {
            "exit": said.live.code, "answers": answers.len(), "agree": agree,
            "said": said.live.stderr,
        },
        "doctor": {"exit": said.doctor.code, "not_ok": said.not_ok},
        "replicas_said_so": self::said(&scene.field) - said_before,
    });
    Ok((value, wrong))
}

/// Whether a task ends once every process was started anew on what the log still has.
async fn begins_anew(scene: &mut Scene) -> bool {
    for name in Field::processes() {
        scene.field.process(name).kill9();
        scene.field.run(name);
    }
    let submit = ["submit", "--wait", "--", "true"];
    let ran = scene.cli(&submit).await;
    if ran.code != 0 {
        println!("{} {}", ran.stdout, ran.stderr);
    }
    ran.code == 0
}

/// A single server has lost these: Conductor must say which, and call nothing well.
fn judge(said: &Said, missing: &[String], flip: Flip, wrong: &mut Vec<String>) {
    let (replay, live) = (&said.replay, &said.live);
    let is_named = missing.iter().all(|m| replay.stderr.contains(m.as_str()));
    if replay.code != 1 || said.replayed["gaps"] != json!(missing) || !is_named {
        wrong.push(format!(
            "replay: exit {}, {}, where {missing:?} are missing: {}",
            replay.code, said.replayed["gaps"], replay.stderr
        ));
    }
    if live.code == 0 || live.code == -1 {
        let (code, words) = (live.code, &live.stderr);
        wrong.push(format!("replay --compare-live: exit {code}: {words}"));
    }
    if said.not_ok.is_empty() || (flip.loses_index && said.doctor.code == 0) {
        wrong.push(format!("doctor calls it well: exit {}", said.doctor.code));
    }
}

fn names<'r>(ranges: impl Iterator<Item = &'r (u64, u64)>) -> Vec<String> {
    ranges.map(|(from, to)| format!("{from}-{to}")).collect()
}

fn last(log: &BTreeMap<u64, Record>) -> u64 {
    log.last_key_value().map_or(0, |(seq, _)| *seq)
}

/// How often replicas have said that the log has lost something.
fn said(field: &Field) -> usize {
    says(field, "the log has lost")
}

/// How often replicas have said that the log has lost its end.
pub(crate) fn said_end_is_lost(field: &Field) -> usize {
    says(field, "the log has lost its end")
}

fn says(field: &Field, words: &str) -> usize {
    let said = Field::processes().into_iter().map(|name| field.said(name));
    said.map(|s| s.matches(words).count()).sum()
}

/// Brings the log into its next block with records that mean nothing, and then some that do.
async fn pad(scene: &Scene) -> Result<(), String> {
    let filler = (0..=BLOCK / 1_000_000).map(|_| {
        let noise = vec![b'x'; 1_000_000];
        ("conductor.local.control", noise)
    });
    let tasks = (0..40).map(|_| {
        let key = uuid::Uuid::new_v4().to_string();
        let task = json!({"run": {"noop": {}}, "key": key, "start_at": "2999-01-01T00:00:00Z"});
        (SUBMIT, task.to_string().into_bytes())
    });
    for (subject, payload) in filler.chain(tasks) {
        let append = Append {
            subject: subject.to_owned(),
            payload: payload.into(),
            id: uuid::Uuid::new_v4().to_string(),
            expected_last: None,
        };
        let done = scene.connection.append(&append).await;
        done.map_err(|e| e.to_string())?;
    }
    // Until everything is decided and nothing more follows.
    let mut last = 0;
    for _ in 0..QUIET_TRIES {
        tokio::time::sleep(QUIET).await;
        let now = scene.connection.last_seq().await;
        let now = now.map_err(|e| e.to_string())?;
        if now == last {
            return Ok(());
        }
        last = now;
    }
    Err(format!("the log is never quiet; it is at {last}"))
}

/// The block files, first to last.
fn blocks(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut blocks: Vec<(u64, PathBuf)> = entries
        .filter_map(|e| {
            let path = e.path();
            let number = path
                .file_name()?
                .to_str()?
                .strip_suffix(".blk")?
                .parse()
                .ok()?;
            Some((number, path))
        })
        .collect();
    blocks.sort();
    blocks.into_iter().map(|(_, path)| path).collect()
}

/// Flips a bit in the payload of a record; returns which.
fn flip_in(
    block: &Path,
    log: &BTreeMap<u64, Record>,
    place: Place,
    random: &mut Random,
) -> Result<u64, String> {
    let mut bytes = std::fs::read(block).map_err(|e| e.to_string())?;
    let find = |payload: &[u8]| bytes.windows(payload.len()).position(|w| w == payload);
    let candidates: Vec<&Record> = if place == Place::LastRecord {
        log.values().next_back().into_iter().collect()
    } else {
        // Each search reads the block: a few dozen candidates are enough.
        let submissions: Vec<&Record> = log.values().filter(|r| r.subject == SUBMIT).collect();
        let step = (submissions.len() / 200).max(1);
        submissions.into_iter().step_by(step).collect()
    };
    let found = candidates
        .into_iter()
        .filter_map(|r| Some((r.seq, find(&r.payload)? + r.payload.len() / 2)));
    let found: Vec<(u64, usize)> = found.collect();
    let middle = found.get(found.len() / 4..found.len() - found.len() / 4);
    let middle = middle.filter(|m| !m.is_empty());
    let middle = middle.ok_or_else(|| format!("{} has no such record", block.display()))?;
    let (seq, at) = *random
        .pick(middle)
        .expect("there are records in the middle");
    bytes[at] ^= 1 << random.below(8);
    std::fs::write(block, bytes).map_err(|e| e.to_string())?;
    Ok(seq)
}

/// The state's digest after folding a log.
fn folded(log: &BTreeMap<u64, Record>) -> String {
    let mut state = State::new(cell());
    for record in log.values() {
        fold::apply(&mut state, &record::decode(&cell(), record));
    }
    state.digest().to_string()
}
