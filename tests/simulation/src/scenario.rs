//! Everything that happens to the system in a run, drawn before it begins: who submits what,
//! what the operator says, which faults come when. What is left to chance while it runs is
//! only how long messages and programs take.
//!
//! A scenario is data: a failing one is made smaller by leaving actions out, and kept.

mod commands;
mod submissions;

use conductor_protocol::Control;
use conductor_protocol::subject::Role;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::options::Options;
use crate::random::Random;

/// When the simulated world begins, in milliseconds since 1970.
pub const START_MS: u64 = 1_800_000_000_000;

/// A process of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Node {
    /// One that stands for roles.
    Replica(usize),
    /// An agent.
    Agent(usize),
}

/// What becomes of the stored snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoil {
    /// All are gone.
    LoseAll,
    /// The newest is gone.
    LoseNewest,
    /// Each is cut short.
    Tear,
    /// One bit of each is another.
    Flip,
    /// The newest stands under another name.
    Rename,
}

/// What somebody untrue writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lie {
    /// An agent reports success under a lease of another.
    ForeignSuccess,
    /// An agent reports success and failure of what it had, again and again.
    Contradiction,
    /// An agent says it stopped what it should be running.
    Stopped,
    /// An agent reports under an incarnation that is over.
    OldIncarnation,
    /// An agent says that an attempt started, twice.
    StartedTwice,
    /// An agent writes what only leaders may.
    WrongWriter,
    /// An agent reports something nobody knows.
    UnknownKind,
    /// A stranger decides under an epoch that is over.
    OldEpoch,
    /// Bytes that mean nothing.
    Garbage,
}

/// Every lie.
pub const LIES: [Lie; 9] = [
    Lie::ForeignSuccess,
    Lie::Contradiction,
    Lie::Stopped,
    Lie::OldIncarnation,
    Lie::StartedTwice,
    Lie::WrongWriter,
    Lie::UnknownKind,
    Lie::OldEpoch,
    Lie::Garbage,
];

/// Something done to the system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// A client submits.
    Submit {
        /// The queue.
        queue: String,
        /// What.
        items: Vec<Value>,
        /// Whether in MessagePack rather than JSON.
        is_msgpack: bool,
    },
    /// The operator says something.
    Say(Control),
    /// A process dies, and is started again after a while.
    Crash(Node, u64),
    /// A process stands still for a while.
    Pause(Node, u64),
    /// A process's tail brings nothing for a while.
    Stall(Node, u64),
    /// The servers are away for a while.
    Outage(u64),
    /// The server forgets what appends it has seen.
    Forget,
    /// A lock is lost though its holder lives.
    Unlock(Role),
    /// The server's clock jumps.
    Jump(i64),
    /// Snapshots are spoiled.
    Spoil(Spoil),
    /// Somebody lies about an agent's work; the number chooses about what.
    Lie(Lie, usize, u64),
    /// Another process takes an agent's name.
    Twin(usize),
    /// An agent's process dies and never comes back.
    Vanish(usize),
    /// An agent drains, leaves and comes back.
    Drain(usize),
    /// Somebody replays the log, from a snapshot or from the first record.
    Replay {
        /// From a snapshot.
        is_from_snapshot: bool,
    },
}

/// A run, as far as it is decided before it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Size and temper.
    pub options: Options,
    /// What happens when, in milliseconds from the beginning, in order.
    pub actions: Vec<(u64, Action)>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        Self::of(Options::draw(seed))
    }

    /// The scenario of these options.
    pub fn of(options: Options) -> Self {
        let mut actions = Vec::new();
        let known = submissions::draw(&options, &mut actions);
        commands::draw(&options, &known, &mut actions);
        draw_faults(&options, &mut actions);
        actions.sort_by_key(|(at, _)| *at);
        Self { options, actions }
    }

    /// How many processes stand for roles.
    pub fn replicas(&self) -> Vec<Vec<Role>> {
        let o = &self.options;
        if o.together {
            let both = vec![Role::Orchestrator, Role::Scheduler];
            return vec![both; o.orchestrators.max(o.schedulers) as usize];
        }
        let orchestrators = std::iter::repeat_n(vec![Role::Orchestrator], o.orchestrators as usize);
        let schedulers = std::iter::repeat_n(vec![Role::Scheduler], o.schedulers as usize);
        orchestrators.chain(schedulers).collect()
    }
}

fn draw_faults(o: &Options, actions: &mut Vec<(u64, Action)>) {
    let mut r = Random::stream(o.seed, "faults");
    let replicas = Scenario {
        options: o.clone(),
        actions: Vec::new(),
    }
    .replicas()
    .len();
    let weights = o.weights.all();
    let total: u64 = weights.iter().sum();
    for _ in 0..o.faults {
        let at = r.below(o.trouble_ms);
        let mut ticket = r.below(total);
        let kind = weights.iter().position(|w| {
            let is_it = ticket < *w;
            ticket = ticket.saturating_sub(*w);
            is_it
        });
        let node = if r.chance(600) {
            Node::Replica(r.below(replicas as u64) as usize)
        } else {
            Node::Agent(r.below(o.agents) as usize)
        };
        let agent = r.below(o.agents) as usize;
        let agent_pause = r.chance(300);
        let vanishes = r.chance(150);
        let action = match kind.unwrap_or(usize::MAX) {
            // One agent always stays.
            0 if vanishes && agent > 0 => Action::Vanish(agent),
            0 => Action::Crash(node, r.around(3_000)),
            // As often as not for longer than an agent may be silent.
            1 if agent_pause => Action::Pause(Node::Agent(agent), r.between(30_000, 120_000)),
            1 => Action::Pause(node, r.around(4_000)),
            2 => Action::Stall(node, r.around(4_000)),
            3 => Action::Outage(r.around(2_000)),
            4 => Action::Forget,
            5 if r.chance(500) => Action::Unlock(Role::Orchestrator),
            5 => Action::Unlock(Role::Scheduler),
            6 => {
                let by = r.around(5_000) as i64;
                Action::Jump(if r.chance(500) { by } else { -by })
            }
            7 => {
                let ways = [
                    Spoil::LoseAll,
                    Spoil::LoseNewest,
                    Spoil::Tear,
                    Spoil::Flip,
                    Spoil::Rename,
                ];
                Action::Spoil(*r.pick(&ways).unwrap_or(&Spoil::LoseAll))
            }
            8 => Action::Lie(*r.pick(&LIES).unwrap_or(&Lie::Garbage), agent, r.draw()),
            9 => Action::Twin(agent),
            10 => Action::Drain(agent),
            _ => Action::Replay {
                is_from_snapshot: r.chance(600),
            },
        };
        actions.push((at, action));
    }
}
