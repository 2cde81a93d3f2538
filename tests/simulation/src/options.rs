//! What one run is like. Each run draws its own mix, so that every fault is met with and
//! without every other (swarm testing).

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Size and temper of a run. Times are in milliseconds, chances in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// Processes that stand for the orchestrator's role.
    pub orchestrators: u64,
    /// Processes that stand for the scheduler's role; the first few are the same processes
    /// if `together`.
    pub schedulers: u64,
    /// Whether processes stand for both roles.
    pub together: bool,
    /// Agents.
    pub agents: u64,
    /// Most slots of an agent.
    pub slots_max: u64,
    /// Records of submissions.
    pub submissions: u64,
    /// Whether all tasks are alike but for their priority, and more than can be run.
    pub is_narrow: bool,
    /// How long there is trouble.
    pub trouble_ms: u64,
    /// How long the log recognises a repeated append.
    pub dedup_window_ms: u64,
    /// Whether it looks for a repetition before it looks at a precondition, as three servers
    /// do, or after it, as one does.
    #[serde(default)]
    pub dedups_first: bool,
    /// Records between snapshots; 0 for none.
    pub snapshot_every: u64,
    /// Usual time of a message on its way.
    pub latency_ms: u64,
    /// Usual time a program runs.
    pub run_ms: u64,
    /// Of attempts: how many fail by themselves.
    pub failing: u64,
    /// Of attempts with a run timeout: how many hang.
    pub hanging: u64,
    /// Of appends: how many never arrive.
    pub lost_requests: u64,
    /// Of appends: how many are stored without the writer hearing of it.
    pub lost_replies: u64,
    /// Of appends: how many arrive long after the writer has given up waiting.
    pub late_requests: u64,
    /// Of appends by leaders: how many are refused for good.
    pub refused: u64,
    /// Of signs of life: how many are lost.
    pub lost_beats: u64,
    /// How much faster or slower each process's clock may run, in thousandths.
    pub drift: u64,
    /// Of attempts: how many ask people.
    #[serde(default)]
    pub asking: u64,
    /// Of questions: how many somebody answers.
    #[serde(default)]
    pub answering: u64,
    /// Of questions: how many their attempts withdraw.
    #[serde(default)]
    pub withdrawing: u64,
    /// Of attempts: how many are told something while they run.
    #[serde(default)]
    pub telling: u64,
    /// Of attempts that may submit tasks: how many do.
    #[serde(default)]
    pub submitting: u64,
    /// Whether agents know the first format alone until they are started again.
    #[serde(default)]
    pub are_agents_old: bool,
    /// How often each kind of trouble comes; 0 for never.
    pub weights: Weights,
    /// Numbers of faults and of commands.
    pub faults: u64,
    /// Commands of the operator.
    pub commands: u64,
}

/// How often each kind of trouble comes, relative to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// A process dies and is started again.
    pub crash: u64,
    /// A process stands still for a while.
    pub pause: u64,
    /// A tail brings nothing for a while.
    pub stall: u64,
    /// The servers are away for a while.
    pub outage: u64,
    /// The server forgets what appends it has seen.
    pub forget: u64,
    /// A lock is lost though its holder lives.
    pub unlock: u64,
    /// The server's clock jumps.
    pub jump: u64,
    /// Snapshots are lost, torn or flipped.
    pub spoil: u64,
    /// An agent lies, or a stranger writes rubbish.
    pub lie: u64,
    /// Another process takes an agent's name.
    pub twin: u64,
    /// An agent drains and leaves, and comes back.
    pub drain: u64,
    /// Somebody replays the log.
    pub replay: u64,
}

impl Weights {
    /// All of them, in a fixed order.
    pub fn all(&self) -> [u64; 12] {
        [
            self.crash,
            self.pause,
            self.stall,
            self.outage,
            self.forget,
            self.unlock,
            self.jump,
            self.spoil,
            self.lie,
            self.twin,
            self.drain,
            self.replay,
        ]
    }
}

impl Options {
    /// The mix of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut r = Random::stream(seed, "options");
        let rare = |r: &mut Random, max: u64| {
            if r.chance(500) { 0 } else { r.between(1, max) }
        };
        let is_calm = r.chance(50);
        let weight = |r: &mut Random| {
            if is_calm || r.chance(450) {
                0
            } else {
                r.between(1, 8)
            }
        };
        let weights = Weights {
            crash: weight(&mut r),
            pause: weight(&mut r),
            stall: weight(&mut r),
            outage: weight(&mut r) / 2,
            forget: weight(&mut r) / 2,
            unlock: weight(&mut r),
            jump: weight(&mut r) / 2,
            spoil: weight(&mut r),
            lie: weight(&mut r),
            twin: weight(&mut r) / 4,
            drain: weight(&mut r) / 2,
            replay: r.between(1, 3),
        };
        let is_narrow = r.chance(100);
        let mut talk = Random::stream(seed, "talk");
        let mixed = Self {
            seed,
            orchestrators: r.between(1, 3),
            schedulers: r.between(1, 3),
            together: r.chance(300),
            agents: r.between(1, 4),
            slots_max: r.between(1, 4),
            submissions: r.between(3, 25),
            is_narrow,
            trouble_ms: r.between(30, 300) * 1_000,
            dedup_window_ms: *r.pick(&[200, 5_000, 120_000]).unwrap_or(&120_000),
            dedups_first: r.chance(500),
            snapshot_every: if r.chance(200) { 0 } else { r.between(5, 120) },
            latency_ms: r.between(1, 20),
            run_ms: r.around(3_000),
            failing: rare(&mut r, 500),
            hanging: rare(&mut r, 500),
            lost_requests: rare(&mut r, 60),
            lost_replies: rare(&mut r, 60),
            late_requests: rare(&mut r, 40),
            refused: if r.chance(900) { 0 } else { r.between(1, 20) },
            lost_beats: rare(&mut r, 200),
            drift: rare(&mut r, 200),
            asking: rare(&mut talk, 600),
            answering: talk.below(1_001),
            telling: rare(&mut talk, 400),
            are_agents_old: talk.chance(150),
            submitting: rare(&mut talk, 900),
            withdrawing: if talk.chance(900) {
                0
            } else {
                talk.between(1, 400)
            },
            weights,
            faults: r.between(0, 40),
            commands: if r.chance(200) { 0 } else { r.between(1, 30) },
        };
        if !is_narrow {
            return mixed;
        }
        Self {
            agents: 1,
            slots_max: 1,
            submissions: r.between(40, 70),
            trouble_ms: 400_000,
            run_ms: 4_000,
            commands: 0,
            ..mixed
        }
    }
}
