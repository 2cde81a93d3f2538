//! What an attempt reaches the world by, and what it is granted: before its programs start, and
//! while they run.

use std::collections::BTreeMap;
use std::path::Path;

use conductor_protocol::event::{AttemptThrottled, AttemptUsage};

use super::end::End;
use super::watch::{Watch, Why};
use super::{Attempt, Course};
use crate::models::{Line, Notice, Plan};
use crate::runtime::Host;
use crate::sandbox::Boxing;
use crate::secrets::{self, Granted};

/// What its programs are given.
#[derive(Debug)]
pub(super) struct Reach {
    /// What the agent lends them: of keys, placeholders.
    pub(super) host: Host,
    /// What stands in their environment besides what their runtime says.
    pub(super) env: BTreeMap<String, String>,
    /// What is open.
    pub(super) line: Line,
}

/// What they will be given.
#[derive(Debug)]
pub(super) struct ReachPlan {
    host: Host,
    env: BTreeMap<String, String>,
    plan: Plan,
    granted: Granted,
}

impl Reach {
    /// What nothing was given yet.
    pub(super) fn none(host: &Host) -> Self {
        Self {
            host: host.clone(),
            env: BTreeMap::new(),
            line: Line::none(),
        }
    }
}

impl ReachPlan {
    /// Puts it where programs find it: `run` is the directory they share with the agent.
    pub(super) fn open(self, attempt: &Attempt, run: &Path) -> Result<Reach, String> {
        self.granted.write(run)?;
        Ok(Reach {
            line: self.plan.open(&attempt.host.models, run)?,
            host: self.host,
            env: self.env,
        })
    }
}

impl Course {
    /// Works out what its programs are given; from then on its secrets are masked.
    pub(super) async fn plan_reach(
        &self,
        mut boxing: Boxing,
    ) -> Result<(Boxing, ReachPlan), String> {
        let (attempt, paths) = (&self.of, boxing.paths(&self.dirs));
        let terms = attempt.assigned.terms.as_deref();
        let names = terms.map(|t| t.secrets.as_slice()).unwrap_or_default();
        let granted = attempt.host.secrets.grant(names)?;
        let (models, is_own) = (&attempt.host.models, boxing.has_own_network());
        let plan = Plan::new(models, &attempt.assigned, &paths, is_own).await?;
        boxing.ports = plan.ports().collect();
        let keys = plan.secrets().map(|key| key.expose().as_bytes());
        attempt.masks.set(keys.chain(granted.values()));
        let mut env = plan.env();
        if !granted.is_empty() {
            let dir = Granted::dir(&paths.run).display().to_string();
            env.insert(secrets::VARIABLE.to_owned(), dir);
        }
        let host = plan.host(&attempt.host);
        let reach = ReachPlan {
            host,
            env,
            plan,
            granted,
        };
        Ok((boxing, reach))
    }

    /// Does what is to be done about what was noticed of its models.
    pub(super) fn notice(&mut self, notice: Notice, watch: &mut Watch) {
        let lease = self.of.lease;
        match notice {
            Notice::Usage(usage) => self.of.tell(AttemptUsage { lease, usage }),
            Notice::Throttled(until_ms) => self.of.tell(AttemptThrottled { lease, until_ms }),
            Notice::Ask(account) => self.of.people.ask_for_budget(&account),
            Notice::Over => watch.on_refusal(),
        }
    }

    /// Its program is gone: what it used is what was metered, and what it was refused is why it
    /// failed.
    pub(super) async fn settle(&mut self, end: &mut End) {
        let line = &mut self.reach.line;
        line.close().await;
        end.usage = line.usage(end.usage.take());
        if matches!(end.why, Why::Ended | Why::Lingering | Why::Refused) {
            end.failure = line.failure(end.failure.take());
        }
    }
}
