//! The kinds of faults, and their schedule: a function of the seed.

use crate::field::Kind;
use crate::ground::Topology;
use conductor_simulation::random::Random;

/// What is done to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// Connections are closed.
    Cut,
    /// Nothing arrives.
    BlackHole,
    /// Everything arrives late.
    Delay,
}

impl Harm {
    fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::BlackHole => "black hole",
            Self::Delay => "delay",
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9` of a process, which is started again at once.
    Kill(Kind),
    /// SIGSTOP, and SIGCONT later.
    Freeze(Kind),
    /// `kill -9` of the process that leads, which stays away for a while.
    KillLeader(Kind),
    /// SIGSTOP of the process that leads, and SIGCONT later.
    FreezeLeader(Kind),
    /// `kill -9` of a server.
    KillServer,
    /// SIGSTOP of a server, and SIGCONT later.
    FreezeServer,
    /// The leader of the log's stream steps down.
    StepDown,
    /// A process, or the client, and the servers.
    Link(Harm),
    /// A server and everybody who talks to it.
    ServerLinks(Harm),
    /// A server and the others.
    Routes(Harm),
    /// `kill -9` of everything, servers included.
    RestartAll,
    /// A server cannot write.
    DiskFull,
    /// Every snapshot is lost.
    LoseSnapshots,
    /// Every stream but the log is lost.
    LoseStreams,
}

use Fault::{
    DiskFull, Freeze, FreezeLeader, FreezeServer, Kill, KillLeader, KillServer, Link,
    LoseSnapshots, LoseStreams, RestartAll, Routes, ServerLinks, StepDown,
};

/// Every kind, with how often it is in a round for one node and for three.
const KINDS: [(Fault, usize, usize); 25] = [
    (Kill(Kind::Orchestrator), 1, 1),
    (Kill(Kind::Scheduler), 1, 1),
    (Kill(Kind::Agent), 2, 1),
    (Freeze(Kind::Orchestrator), 1, 1),
    (Freeze(Kind::Scheduler), 1, 1),
    (Freeze(Kind::Agent), 2, 1),
    (KillLeader(Kind::Orchestrator), 1, 1),
    (KillLeader(Kind::Scheduler), 1, 1),
    (FreezeLeader(Kind::Orchestrator), 1, 1),
    (FreezeLeader(Kind::Scheduler), 1, 1),
    (KillServer, 2, 2),
    (FreezeServer, 1, 1),
    (StepDown, 0, 2),
    (Link(Harm::Cut), 1, 1),
    (Link(Harm::BlackHole), 1, 1),
    (Link(Harm::Delay), 1, 1),
    (ServerLinks(Harm::Cut), 1, 1),
    (ServerLinks(Harm::BlackHole), 1, 1),
    (Routes(Harm::Cut), 0, 1),
    (Routes(Harm::BlackHole), 0, 1),
    (Routes(Harm::Delay), 0, 1),
    (RestartAll, 1, 1),
    (DiskFull, 1, 1),
    (LoseSnapshots, 1, 1),
    (LoseStreams, 1, 1),
];

impl Fault {
    /// For the report.
    pub(crate) fn name(self) -> String {
        match self {
            Kill(kind) => format!("kill -9 {}", kind.name()),
            Freeze(kind) => format!("freeze {}", kind.name()),
            KillLeader(kind) => format!("kill -9 leading {}", kind.name()),
            FreezeLeader(kind) => format!("freeze leading {}", kind.name()),
            KillServer => "kill -9 nats-server".to_owned(),
            FreezeServer => "freeze nats-server".to_owned(),
            StepDown => "stream leader steps down".to_owned(),
            Link(harm) => format!("{}: process and servers", harm.name()),
            ServerLinks(harm) => format!("{}: server and everybody", harm.name()),
            Routes(harm) => format!("{}: server and servers", harm.name()),
            RestartAll => "kill -9 everything".to_owned(),
            DiskFull => "disk full".to_owned(),
            LoseSnapshots => "every snapshot lost".to_owned(),
            LoseStreams => "every stream but the log lost".to_owned(),
        }
    }
}

/// A fault of the schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    /// What.
    pub(crate) fault: Fault,
    /// Who, of those who may be it.
    pub(crate) victim: u64,
    /// For how long.
    pub(crate) hold_ms: u64,
    /// How long after the one before.
    pub(crate) pause_ms: u64,
}

/// The faults of a topology, without end: rounds of every kind, each in an order of its own.
#[derive(Debug)]
pub(crate) struct Schedule {
    topology: Topology,
    random: Random,
    round: Vec<Fault>,
}

/// Whether there is a fault with this in its name.
pub(crate) fn is_there(text: &str) -> bool {
    KINDS.iter().any(|(fault, ..)| fault.name().contains(text))
}

impl Schedule {
    /// The schedule of a seed.
    pub(crate) fn new(topology: Topology, random: Random) -> Self {
        Self {
            topology,
            random,
            round: Vec::new(),
        }
    }
}

impl Iterator for Schedule {
    type Item = Planned;
    fn next(&mut self) -> Option<Planned> {
        if self.round.is_empty() {
            for (fault, one, three) in KINDS {
                let times = match self.topology {
                    Topology::One => one,
                    Topology::Three => three,
                };
                self.round.extend(std::iter::repeat_n(fault, times));
            }
            self.random.shuffle(&mut self.round);
        }
        let fault = self.round.pop()?;
        // Mostly short; now and then longer than a lease of the load, so that work is done
        // again while the first to do it still runs.
        let is_long = self.random.below(8) == 0;
        let hold_ms = match fault {
            Freeze(_) | Link(Harm::Cut | Harm::BlackHole) if is_long => {
                self.random.between(6_500, 9_000)
            }
            FreezeLeader(_) | KillLeader(_) => self.random.between(2_500, 4_000),
            _ => self.random.between(300, 2_500),
        };
        Some(Planned {
            fault,
            victim: self.random.draw(),
            hold_ms,
            pause_ms: self.random.between(100, 600),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_schedule_and_a_round_has_every_kind() {
        let schedule = |seed| {
            let schedule = Schedule::new(Topology::Three, Random::stream(seed, "schedule"));
            let planned = schedule.take(40).map(|p| format!("{p:?}"));
            planned.collect::<Vec<_>>()
        };
        assert_eq!(schedule(1), schedule(1));
        assert_ne!(schedule(1), schedule(2));
        for topology in [Topology::One, Topology::Three] {
            let round: Vec<Fault> = Schedule::new(topology, Random::stream(3, "schedule"))
                .take(30)
                .map(|p| p.fault)
                .collect();
            let is_for = |one, three| match topology {
                Topology::One => one > 0,
                Topology::Three => three > 0,
            };
            for (fault, one, three) in KINDS {
                assert_eq!(round.contains(&fault), is_for(one, three), "{fault:?}");
            }
        }
    }
}
