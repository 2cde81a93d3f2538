//! Agents take their names, by the real bids.

use conductor_agent::duty::Input;
use conductor_eventlog::group_commit::repeat_pause;
use conductor_eventlog::{AppendError, GroupCommit};
use conductor_protocol::event::AgentJoined;
use conductor_protocol::frame::FrameHead;
use conductor_protocol::limits::FORMAT_KNOWN;
use conductor_protocol::spec::Runtime;
use conductor_protocol::subject::Subject;
use conductor_replica::Bid;

use super::network::{Answer, Letter, Tag};
use super::{Life, Next, World};
use crate::checkers::Violation;
use crate::scenario::Node;

impl World {
    pub(super) fn join(&mut self, n: usize, life: Life) {
        let Some(process) = self.agents.get_mut(n) else {
            return;
        };
        let Some(agent) = process.up.as_mut() else {
            return;
        };
        agent.commit = None;
        agent.joins += 1;
        let version = "1".to_owned();
        let joined = AgentJoined {
            version: version.clone(),
            host: "sim".to_owned(),
            process: format!("{n}-{}-{}", life.number, agent.joins),
            slots: process.slots,
            labels: [("zone".to_owned(), format!("z{}", process.zone))].into(),
            runtimes: [Runtime::Command, Runtime::Noop, Runtime::Claude]
                .map(|r| (r, version.clone()))
                .into(),
            format: if self.scenario.options.are_agents_old && life.number == 1 && !self.is_calm {
                1
            } else {
                FORMAT_KNOWN
            },
            ..AgentJoined::default()
        };
        let subject = Subject::Agent(process.id.clone()).render(&self.cell);
        let id = joined.process.clone();
        let last = self.log.last_on(&subject);
        let bid = Bid::new(subject, &joined.into(), &id, last);
        let append = bid.append.clone();
        agent.bid = Some(bid);
        let letter = Letter {
            from: Some(life),
            tag: Tag::Join,
            append,
            tries: 0,
        };
        self.push_in(0, Next::Send(letter));
    }

    pub(super) fn join_hears(
        &mut self,
        life: Life,
        mut letter: Letter,
        answer: &Answer,
    ) -> Result<(), Violation> {
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let bid = self.agent(n).and_then(|a| a.bid.clone());
        let Some(bid) = bid.filter(|b| b.append == letter.append) else {
            return Ok(());
        };
        let incarnation = match answer {
            Ok(appended) => appended.seq,
            Err(AppendError::Unavailable(_)) => {
                letter.tries += 1;
                let pause = repeat_pause(letter.tries);
                self.push_in(pause.as_millis() as u64, Next::Send(letter));
                return Ok(());
            }
            Err(_) => {
                let last = self.log.last_on(&letter.append.subject);
                let Some(seq) = last.and_then(|last| bid.seq_if_won(last)) else {
                    self.join(n, life);
                    return Ok(());
                };
                seq
            }
        };
        let Some(agent) = self.agent(n) else {
            return Ok(());
        };
        let writer = format!("agent-{n}-{incarnation}");
        let head = FrameHead::incarnation(incarnation);
        agent.commit = Some((incarnation, GroupCommit::new(head, writer, 1)));
        agent.next = incarnation + 1;
        self.expect_delivery(Node::Agent(n));
        self.tell_agent(life, Input::Joined(incarnation))
    }
}
