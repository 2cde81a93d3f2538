//! Processes take and keep roles, by the real bids, kept apart by simulated locks.

use conductor_protocol::subject::{Role, Subject};
use conductor_replica::host::Input;
use conductor_replica::{Bid, election};

use super::network::{Answer, Letter, Tag};
use super::{Life, Next, World};
use crate::checkers::Violation;
use crate::scenario::Node;

/// How long a lock outlives its holder.
pub(super) const LOCK_TTL_MS: u64 = 5_000;

/// How far a candidate is.
pub(super) enum Candidacy {
    Waiting,
    Bidding(Bid, u64),
    Leading(u64, u64),
}

impl World {
    /// A candidate waits for the lock, or keeps it.
    pub(super) fn stand(&mut self, life: Life, role: Role) -> Result<(), Violation> {
        let Node::Replica(n) = life.node else {
            return Ok(());
        };
        self.push_in(LOCK_TTL_MS / 3, Next::Stand(life, role));
        let (now_ms, is_down) = (self.now_ms, self.is_down());
        let Some(replica) = self.replicas.get_mut(n).and_then(|p| p.up.as_mut()) else {
            return Ok(());
        };
        let newest = replica.host.state().epoch(role);
        let held = self.locks.get(&role).filter(|(_, until)| *until > now_ms);
        let is_ours = held.is_some_and(|(holder, _)| *holder == replica.instance);
        let Some(candidacy) = replica.candidacies.get_mut(&role) else {
            return Ok(());
        };
        let is_over = match candidacy {
            Candidacy::Waiting => {
                if is_down || held.is_some_and(|_| !is_ours) {
                    return Ok(());
                }
                let lock = (replica.instance.clone(), now_ms + LOCK_TTL_MS);
                self.locks.insert(role, lock);
                return self.bid(life, role);
            }
            Candidacy::Bidding(_, since) => now_ms > *since + LOCK_TTL_MS * 3,
            Candidacy::Leading(epoch, renewed) => {
                if newest > *epoch || (!is_down && !is_ours) {
                    true
                } else if is_down {
                    (now_ms - *renewed) * 3 > LOCK_TTL_MS * 2
                } else {
                    *renewed = now_ms;
                    let lock = (replica.instance.clone(), now_ms + LOCK_TTL_MS);
                    self.locks.insert(role, lock);
                    false
                }
            }
        };
        if is_over {
            *candidacy = Candidacy::Waiting;
            if is_ours {
                self.locks.remove(&role);
            }
            self.step(n, Input::Deposed(role))?;
        }
        Ok(())
    }

    fn bid(&mut self, life: Life, role: Role) -> Result<(), Violation> {
        let Node::Replica(n) = life.node else {
            return Ok(());
        };
        let subject = Subject::Leader(role).render(&self.cell);
        let now_ms = self.now_ms;
        let Some(replica) = self.replicas.get_mut(n).and_then(|p| p.up.as_mut()) else {
            return Ok(());
        };
        let last = self.log.last_on(&subject);
        let bid = election::bid(&self.cell, role, &replica.instance, last);
        let (from, tag, append) = (Some(life), Tag::Bid(role), bid.append.clone());
        let candidacy = Candidacy::Bidding(bid, now_ms);
        replica.candidacies.insert(role, candidacy);
        let letter = Letter {
            from,
            tag,
            append,
            tries: 0,
        };
        // Between the look and the bid others may have been elected.
        let way = self.latency(&letter.append.id);
        self.push_in(way, Next::Send(letter));
        Ok(())
    }

    pub(super) fn bid_hears(
        &mut self,
        life: Life,
        role: Role,
        letter: Letter,
        answer: Answer,
    ) -> Result<(), Violation> {
        let (Node::Replica(n), now_ms) = (life.node, self.now_ms) else {
            return Ok(());
        };
        let Some(replica) = self.replicas.get_mut(n).and_then(|p| p.up.as_mut()) else {
            return Ok(());
        };
        let Some(Candidacy::Bidding(bid, since)) = replica.candidacies.get(&role) else {
            return Ok(());
        };
        if bid.append != letter.append {
            return Ok(());
        }
        let epoch = match answer {
            Ok(appended) => Some(appended.seq),
            Err(conductor_eventlog::AppendError::Unavailable(_))
                if now_ms < since + LOCK_TTL_MS =>
            {
                self.push_in(50, Next::Send(letter));
                return Ok(());
            }
            Err(_) => {
                let last = self.log.last_on(&letter.append.subject);
                last.and_then(|last| bid.seq_if_won(last))
            }
        };
        let candidacy = match epoch {
            Some(epoch) => Candidacy::Leading(epoch, now_ms),
            None => Candidacy::Waiting,
        };
        replica.candidacies.insert(role, candidacy);
        match epoch {
            Some(epoch) => self.step(n, Input::Elected(role, epoch)),
            None => {
                let is_ours = |(holder, _): &(String, u64)| *holder == replica.instance;
                if self.locks.get(&role).is_some_and(is_ours) {
                    self.locks.remove(&role);
                }
                Ok(())
            }
        }
    }
}
