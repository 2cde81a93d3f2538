//! Appends on their way, and what becomes of them.

use conductor_eventlog::{Append, AppendError, Appended};
use conductor_protocol::ids::Position;
use conductor_protocol::subject::Role;

use super::{Life, Next, World};
use crate::checkers::{self, Violation};
use crate::scenario::{Action, Node};

/// How long a writer waits for an answer.
const PATIENCE_MS: u64 = 2_000;

/// What the log says of an append.
pub(super) type Answer = Result<Appended, AppendError>;

/// An append on its way.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// Whose it is; `None` for a client's.
    pub(super) from: Option<Life>,
    /// What it is to its writer.
    pub(super) tag: Tag,
    /// The append.
    pub(super) append: Append,
    /// How often it was sent before.
    pub(super) tries: u32,
}

/// What an append is to its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// A frame of a leader's term.
    Term(Role, u64),
    /// A bid for a role.
    Bid(Role),
    /// A frame of an agent's incarnation.
    Report(u64),
    /// An agent joins.
    Join,
    /// Action number so of the scenario.
    Client(usize),
}

impl World {
    /// An append sets out.
    pub(super) fn send(&mut self, letter: Letter) -> Result<(), Violation> {
        let o = &self.scenario.options;
        let (lost, late) = if self.is_calm {
            (0, 0)
        } else {
            (o.lost_requests, o.late_requests)
        };
        // Who takes what after whom is the most delicate.
        let late = match letter.tag {
            Tag::Join | Tag::Bid(_) => late * 12,
            _ => late,
        };
        let way = self.latency(&letter.append.id);
        let mut luck = self.luck(&letter.append.id);
        if luck.chance(lost) {
            self.unanswered(letter);
        } else if luck.chance(late) {
            let delay = luck.between(PATIENCE_MS, 30 * PATIENCE_MS);
            self.unanswered(letter.clone());
            self.push_in(
                delay,
                Next::Arrive(Letter {
                    from: None,
                    ..letter
                }),
            );
        } else {
            self.push_in(way, Next::Arrive(letter));
        }
        Ok(())
    }

    /// Its writer will hear nothing of it.
    fn unanswered(&mut self, letter: Letter) {
        let answer = Err(AppendError::Unavailable("no answer".to_owned()));
        self.push_in(PATIENCE_MS, Next::Hear(letter, answer));
    }

    /// An append reaches the log.
    pub(super) fn arrive(&mut self, letter: Letter) -> Result<(), Violation> {
        // What arrives late is nobody's any more: a zombie's, whoever is alive by now.
        let is_late = letter.from.is_none() && !matches!(letter.tag, Tag::Client(_));
        if self.is_down() {
            if !is_late {
                self.unanswered(letter);
            }
            return Ok(());
        }
        let o = &self.scenario.options;
        let is_leaders = matches!(letter.tag, Tag::Term(..));
        let refused = o.refused;
        let mut luck = self.luck(&format!("{} arrives", letter.append.id));
        if is_leaders && !self.is_calm && luck.chance(refused) {
            let answer = Err(AppendError::Refused("it does not like it".to_owned()));
            self.say(|| format!("log refuses {}", letter.append.subject));
            self.answer(letter, answer);
            return Ok(());
        }
        let answer = self.log.append(&letter.append, self.server_ms());
        if let Ok(appended) = &answer
            && !appended.is_duplicate
        {
            let is_repeat = !self.ids.insert(letter.append.id.clone());
            self.stored(appended.seq, is_repeat)?;
        }
        let lost = if self.is_calm {
            0
        } else {
            self.scenario.options.lost_replies
        };
        if luck.chance(lost) {
            self.unanswered(letter);
        } else {
            self.answer(letter, answer);
        }
        Ok(())
    }

    fn answer(&mut self, letter: Letter, answer: Answer) {
        let way = self.latency(&letter.append.id);
        self.push_in(way, Next::Hear(letter, answer));
    }

    /// Somebody outside of the system publishes.
    pub(super) fn publish(&mut self, subject: String, payload: Vec<u8>) -> Result<(), Violation> {
        if self.is_down() {
            return Ok(());
        }
        let record = conductor_domain::Record {
            seq: 0,
            time_ms: 0,
            subject,
            content_type: None,
            reply: None,
            traceparent: None,
            payload: payload.into(),
        };
        let seq = self.log.publish(record, self.server_ms());
        self.stored(seq, false)
    }

    /// A record is in the log: everybody who follows it hears of it in a while.
    fn stored(&mut self, seq: u64, is_repeat: bool) -> Result<(), Violation> {
        let Some(record) = self.log.read(seq).cloned() else {
            return Ok(());
        };
        let seen = self.referee.see(&record, is_repeat);
        if self.story.is_some() {
            let lines = crate::story::lines(&self.referee, seq, &record, is_repeat);
            for line in lines {
                self.say(|| line);
            }
        }
        seen?;
        self.people_read();
        for n in 0..self.replicas.len() {
            self.expect_delivery(Node::Replica(n));
        }
        for n in 0..self.agents.len() {
            self.expect_delivery(Node::Agent(n));
        }
        Ok(())
    }

    /// The tail of a process will bring something, if nothing is on its way yet.
    pub(super) fn expect_delivery(&mut self, node: Node) {
        let way = self.latency(&format!("{node:?}"));
        let stalled = match node {
            Node::Replica(n) => self.replicas.get(n).map_or(0, |p| p.stalled_until_ms),
            Node::Agent(n) => self.agents.get(n).map_or(0, |p| p.stalled_until_ms),
        };
        let at = (self.now_ms + way).max(stalled).max(self.down_until_ms);
        let life = match node {
            Node::Replica(n) => self.replicas.get_mut(n).and_then(|p| p.expects(n)),
            Node::Agent(n) => self.agents.get_mut(n).and_then(|p| p.expects(n)),
        };
        if let Some(life) = life {
            self.push(at, Next::Deliver(life));
        }
    }

    /// What the log says of an append reaches its writer.
    pub(super) fn hear(&mut self, letter: Letter, answer: Answer) -> Result<(), Violation> {
        match (letter.tag.clone(), letter.from) {
            (Tag::Client(n), _) => self.client_hears(n, letter, answer),
            (Tag::Term(role, epoch), Some(life)) => {
                self.term_hears(life, role, epoch, &letter.append.subject, answer)
            }
            (Tag::Bid(role), Some(life)) => self.bid_hears(life, role, letter, answer),
            (Tag::Report(incarnation), Some(life)) => {
                self.report_hears(life, incarnation, &letter.append.subject, answer);
                Ok(())
            }
            (Tag::Join, Some(life)) => self.join_hears(life, letter, &answer),
            (_, None) => Ok(()),
        }
    }

    /// Every task that a client was told is stored is a submission to those who decide.
    fn client_books(&self, n: usize, seq: u64) -> Result<(), Violation> {
        let Some((_, Action::Submit { items, .. })) = self.scenario.actions.get(n) else {
            return Ok(());
        };
        let known = &self.referee.ledger.submissions;
        let positions = (0..items.len()).map(|i| Position::new(seq, i as u32));
        match { positions }.find(|at| !known.contains_key(at)) {
            None => Ok(()),
            Some(at) => Err(Violation {
                rule: checkers::ACKED_IS_STORED,
                seq,
                what: format!("{at} is acknowledged, and nobody will decide it"),
            }),
        }
    }

    /// A client repeats until it is told that its record is stored.
    fn client_hears(
        &mut self,
        n: usize,
        mut letter: Letter,
        answer: Answer,
    ) -> Result<(), Violation> {
        match answer {
            Ok(appended) => {
                self.unacked.remove(&n);
                let stored = self.log.read(appended.seq);
                if stored.is_none_or(|record| record.payload != letter.append.payload) {
                    return Err(Violation {
                        rule: checkers::ACKED_IS_STORED,
                        seq: appended.seq,
                        what: format!("{} is acknowledged and not there", letter.append.id),
                    });
                }
                self.client_books(n, appended.seq)?;
            }
            Err(_) => {
                letter.tries += 1;
                let pause = conductor_eventlog::group_commit::repeat_pause(letter.tries);
                self.push_in(pause.as_millis() as u64, Next::Send(letter));
            }
        }
        Ok(())
    }
}
