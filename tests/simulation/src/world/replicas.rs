//! Processes that stand for roles: the real host, the real deciders, the real group commit;
//! elections by the real bids, kept apart by simulated locks.

use std::collections::BTreeMap;

use conductor_domain::State;
use conductor_domain::record::Submissions;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_eventlog::{Fate, GroupCommit};
use conductor_orchestrator::Orchestrator;
use conductor_protocol::frame::FrameHead;
use conductor_protocol::subject::Role;
use conductor_replica::follow::Batch;
use conductor_replica::host::{Effect, Host, Input};
use conductor_replica::role::{Complete, Draft, Gather, Role as Decider};
use conductor_scheduler::Scheduler;

use super::elections::{Candidacy, LOCK_TTL_MS};
use super::network::{Answer, Letter, Tag};
use super::{Life, Next, World};
use crate::checkers::Violation;
use crate::referee::COMPARED_EVERY;
use crate::scenario::Node;

/// A record's body that was asked for.
pub(super) struct Fetch {
    role: Role,
    epoch: u64,
    what: Wanted,
}

/// What is read, and for what.
enum Wanted {
    Body(u64, Complete),
    Records(Gather),
}

/// A process that stands for roles.
pub(super) struct ReplicaProcess {
    roles: Vec<Role>,
    seed: u64,
    /// How fast its clock runs, in thousandths.
    pub(super) pace: u64,
    pub(super) life: u32,
    pub(super) paused_until_ms: u64,
    pub(super) stalled_until_ms: u64,
    pub(super) up: Option<Replica>,
}

/// What such a process has while it is up.
pub(super) struct Replica {
    pub(super) instance: String,
    pub(super) host: Host,
    pub(super) terms: BTreeMap<Role, (u64, GroupCommit)>,
    pub(super) candidacies: BTreeMap<Role, Candidacy>,
    next: u64,
    is_expecting: bool,
    wake_at_ms: Option<u64>,
}

impl ReplicaProcess {
    pub(super) fn new(roles: Vec<Role>, seed: u64, pace: u64) -> Self {
        Self {
            roles,
            seed,
            pace,
            life: 0,
            paused_until_ms: 0,
            stalled_until_ms: 0,
            up: None,
        }
    }

    /// How far it has read, if it is up.
    pub(super) fn seq(&self) -> Option<u64> {
        self.up.as_ref().map(|up| up.host.state().seq)
    }

    /// Whose delivery is to be set out, unless one is on its way.
    pub(super) fn expects(&mut self, n: usize) -> Option<Life> {
        let up = self.up.as_mut().filter(|up| !up.is_expecting)?;
        up.is_expecting = true;
        let node = Node::Replica(n);
        Some(Life {
            node,
            number: self.life,
        })
    }
}

impl World {
    fn replica(&mut self, n: usize) -> Option<&mut Replica> {
        self.replicas.get_mut(n)?.up.as_mut()
    }

    fn replica_life(&self, n: usize) -> Life {
        Life {
            node: Node::Replica(n),
            number: self.replicas.get(n).map_or(0, |p| p.life),
        }
    }

    pub(super) fn start_replica(&mut self, n: usize) -> Result<(), Violation> {
        let loaded = self.shelf.newest();
        if let Some(state) = &loaded {
            self.referee.compare("a snapshot", state)?;
        }
        let state = loaded.unwrap_or_else(|| State::new(self.cell.clone()));
        let (cell, every) = (self.cell.clone(), self.scenario.options.snapshot_every);
        let Some(process) = self.replicas.get_mut(n).filter(|p| p.up.is_none()) else {
            return Ok(());
        };
        process.life += 1;
        let (seq, life) = (state.seq, process.life);
        let seed = process.seed.wrapping_add(u64::from(life));
        let deciders = process.roles.iter().map(|role| match role {
            Role::Orchestrator => Box::new(Orchestrator::new(&cell, seed)) as Box<dyn Decider>,
            Role::Scheduler => Box::new(Scheduler::new(&cell)),
        });
        process.up = Some(Replica {
            instance: format!("r{n}-{life}"),
            host: Host::new(state, deciders.collect(), every),
            terms: BTreeMap::new(),
            candidacies: process
                .roles
                .iter()
                .map(|r| (*r, Candidacy::Waiting))
                .collect(),
            next: seq + 1,
            is_expecting: false,
            wake_at_ms: None,
        });
        let roles = process.roles.clone();
        self.say(|| format!("r{n} starts at record {seq}"));
        let life = self.replica_life(n);
        for role in roles {
            let soon = self.luck(&format!("{life:?}")).below(LOCK_TTL_MS / 3);
            self.push_in(soon, Next::Stand(life, role));
        }
        self.expect_delivery(Node::Replica(n));
        Ok(())
    }

    pub(super) fn deliver_to_replica(&mut self, n: usize) -> Result<(), Violation> {
        let mut luck = self.luck(&format!("delivery to {n}"));
        let (most, to_multiple) = (luck.between(1, 64), luck.chance(500));
        let Some(process) = self.replicas.get_mut(n) else {
            return Ok(());
        };
        let until = process.stalled_until_ms.max(self.down_until_ms);
        let Some(replica) = process.up.as_mut() else {
            return Ok(());
        };
        replica.is_expecting = false;
        if self.now_ms < until {
            self.expect_delivery(Node::Replica(n));
            return Ok(());
        }
        let last = self.log.last_seq();
        let mut end = last.min(replica.next + most - 1);
        let compared = end - end % COMPARED_EVERY;
        if to_multiple && compared >= replica.next {
            end = compared;
        }
        if end < replica.next {
            return Ok(());
        }
        let range = (replica.next - 1) as usize..end as usize;
        let batch = Batch {
            records: self.referee.decoded.get(range).unwrap_or_default().to_vec(),
            gaps: Vec::new(),
            pending: last - end,
        };
        replica.next = end + 1;
        if end < last {
            self.expect_delivery(Node::Replica(n));
        }
        self.step(n, Input::Records(&batch))?;
        if let Some(replica) = self.replicas.get(n).and_then(|p| p.up.as_ref()) {
            self.referee
                .compare(&format!("replica {n}"), replica.host.state())?;
        }
        Ok(())
    }

    /// Tells the host something, and does what it says.
    pub(super) fn step(&mut self, n: usize, input: Input<'_>) -> Result<(), Violation> {
        let now = self.instant(Node::Replica(n));
        let Some(replica) = self.replica(n) else {
            return Ok(());
        };
        let terms = &replica.terms;
        let waiting = |role| {
            terms
                .get(&role)
                .map_or(0, |(_, commit)| commit.waiting_bytes())
        };
        let effects = replica.host.step(input, now, waiting);
        for effect in effects {
            self.perform(n, effect);
        }
        self.set_wake(n);
        Ok(())
    }

    fn perform(&mut self, n: usize, effect: Effect) {
        let life = self.replica_life(n);
        let Some(replica) = self.replica(n) else {
            return;
        };
        match effect {
            Effect::Begin {
                role,
                epoch,
                in_flight_max,
            } => {
                let writer = format!("{}-{role}-{epoch}", replica.instance);
                let commit = GroupCommit::new(FrameHead::epoch(epoch), writer, in_flight_max);
                replica.terms.insert(role, (epoch, commit));
                self.say(|| format!("r{n} leads as {role} under epoch {epoch}"));
            }
            Effect::End(role, _) => {
                replica.terms.remove(&role);
                self.say(|| format!("r{n} leads as {role} no longer"));
            }
            Effect::Append(role, drafts) => {
                let Some((epoch, commit)) = replica.terms.get_mut(&role) else {
                    return;
                };
                let epoch = *epoch;
                let mut fetches = Vec::new();
                for draft in drafts {
                    match draft {
                        Draft::Events { subject, events } => commit.push(&subject, events),
                        Draft::WithBody { seq, complete, .. } => fetches.push(Fetch {
                            role,
                            epoch,
                            what: Wanted::Body(seq, complete),
                        }),
                        Draft::WithRecords(gather) => fetches.push(Fetch {
                            role,
                            epoch,
                            what: Wanted::Records(gather),
                        }),
                    }
                }
                for fetch in fetches {
                    let about = match &fetch.what {
                        Wanted::Body(seq, _) => format!("body {seq}"),
                        Wanted::Records(gather) => format!("records {:?}", gather.seqs),
                    };
                    let way = 2 * self.latency(&about);
                    self.push_in(way, Next::Fetched(life, Box::new(fetch)));
                }
                self.pump(n, role);
            }
            // Who is told is not part of the log; the words are the fold's.
            Effect::Notify(_) | Effect::Count(_) => {}
            Effect::Save(seq, bytes) => {
                self.say(|| format!("r{n} saves a snapshot at {seq}"));
                self.shelf.put(seq, bytes);
            }
        }
    }

    /// Sends what the term's appender has ready.
    fn pump(&mut self, n: usize, role: Role) {
        let from = Some(self.replica_life(n));
        let Some((epoch, commit)) = self.replica(n).and_then(|r| r.terms.get_mut(&role)) else {
            return;
        };
        let tag = Tag::Term(role, *epoch);
        let mut appends = Vec::new();
        while let Some(append) = commit.next_append() {
            appends.push(append);
        }
        for append in appends {
            let (tag, tries) = (tag.clone(), 0);
            let letter = Letter {
                from,
                tag,
                append,
                tries,
            };
            self.push_in(0, Next::Send(letter));
        }
    }

    pub(super) fn fetched(&mut self, life: Life, fetch: Fetch) -> Result<(), Violation> {
        let Node::Replica(n) = life.node else {
            return Ok(());
        };
        if self.is_down() {
            self.push(self.down_until_ms + 1, Next::Fetched(life, Box::new(fetch)));
            return Ok(());
        }
        let event = match fetch.what {
            Wanted::Body(seq, complete) => {
                let record = self.log.read(seq).and_then(Submissions::of);
                record.and_then(|record| complete(&record))
            }
            Wanted::Records(gather) => {
                let read = |seq: &u64| Some((*seq, self.log.read(*seq)?.clone()));
                (gather.complete)(&gather.seqs.iter().filter_map(read).collect())
            }
        };
        let term = self.replica(n).and_then(|r| r.terms.get_mut(&fetch.role));
        if let (Some((epoch, commit)), Some((subject, event))) = (term, event)
            && *epoch == fetch.epoch
        {
            commit.push(&subject, event);
            self.pump(n, fetch.role);
        }
        Ok(())
    }

    pub(super) fn term_hears(
        &mut self,
        life: Life,
        role: Role,
        epoch: u64,
        subject: &str,
        answer: Answer,
    ) -> Result<(), Violation> {
        let Node::Replica(n) = life.node else {
            return Ok(());
        };
        let Some((current, commit)) = self.replica(n).and_then(|r| r.terms.get_mut(&role)) else {
            return Ok(());
        };
        if *current != epoch {
            return Ok(());
        }
        match commit.answered(subject, answer) {
            Fate::Repeat(append, pause) => {
                let (from, tag, tries) = (Some(life), Tag::Term(role, epoch), 0);
                let letter = Letter {
                    from,
                    tag,
                    append,
                    tries,
                };
                self.push_in(pause.as_millis() as u64, Next::Send(letter));
            }
            Fate::Refused(_) => self.step(n, Input::Refused(role, epoch))?,
            Fate::Stored(_) | Fate::Unknown => {}
        }
        self.pump(n, role);
        Ok(())
    }

    /// The host wants to be woken when something is due.
    fn set_wake(&mut self, n: usize) {
        let (now, now_ms) = (self.instant(Node::Replica(n)), self.now_ms);
        let life = self.replica_life(n);
        let Some(replica) = self.replica(n) else {
            return;
        };
        let Some(wait) = replica.host.next_wake(now) else {
            return;
        };
        let at = now_ms + wait.as_millis() as u64 + 1;
        if replica.wake_at_ms.is_none_or(|set| at < set) {
            replica.wake_at_ms = Some(at);
            self.push(at, Next::Wake(life));
        }
    }

    pub(super) fn wake(&mut self, life: Life) -> Result<(), Violation> {
        let (Node::Replica(n), now_ms) = (life.node, self.now_ms) else {
            return Ok(());
        };
        let Some(replica) = self.replica(n) else {
            return Ok(());
        };
        // One that was set anew for an earlier time has come already.
        if replica.wake_at_ms.is_none_or(|at| at > now_ms) {
            return Ok(());
        }
        replica.wake_at_ms = None;
        self.step(n, Input::Tick)
    }

    pub(super) fn beat_arrives(&mut self, life: Life, beat: &Beat) -> Result<(), Violation> {
        match life.node {
            Node::Replica(n) => self.step(n, Input::Beat(beat)),
            Node::Agent(_) => Ok(()),
        }
    }

    /// Signs of life can be heard again.
    pub(super) fn presence_restored(&mut self) -> Result<(), Violation> {
        for n in 0..self.replicas.len() {
            self.step(n, Input::PresenceRestored)?;
        }
        Ok(())
    }
}
