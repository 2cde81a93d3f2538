//! What an attempt reaches the world by, and what it is granted: before its programs start, and
//! while they run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use conductor_protocol::event::{AttemptThrottled, AttemptUsage};

use super::end::End;
use super::watch::{Watch, Why};
use super::{Attempt, Course};
use crate::dirs::AttemptDirs;
use crate::models::{Line, Notice, Plan, Tab};
use crate::runtime::Host;
use crate::sandbox::Boxing;
use crate::secrets::{self, Granted};
use crate::sessions::USED;
use crate::tools::{Endpoint, Given, TOKEN_VARIABLE, Tools, URL_VARIABLE};
use crate::workspace::store::Keeper;

/// What its programs are given.
#[derive(Debug)]
pub(super) struct Reach {
    /// What the agent lends them: of keys, placeholders.
    pub(super) host: Host,
    /// What stands in their environment besides what their runtime says.
    pub(super) env: BTreeMap<String, String>,
    /// What is open.
    pub(super) line: Line,
    /// Where they find their tools.
    pub(super) endpoint: Option<Endpoint>,
    /// What those have said.
    pub(super) tools: Option<Tools>,
}

/// What they will be given.
#[derive(Debug)]
pub(super) struct ReachPlan {
    host: Host,
    env: BTreeMap<String, String>,
    plan: Plan,
    granted: Granted,
    /// Where they see their workspace; one that goes on in a place of its own is elsewhere on the
    /// machine.
    seen_at: Option<PathBuf>,
}

impl Reach {
    /// What nothing was given yet.
    pub(super) fn none(host: &Host) -> Self {
        Self {
            host: host.clone(),
            env: BTreeMap::new(),
            line: Line::none(),
            endpoint: None,
            tools: None,
        }
    }
}

impl ReachPlan {
    /// Puts it where programs find it, once their directories are there.
    pub(super) fn open(
        self,
        attempt: &Attempt,
        dirs: &AttemptDirs,
        keeper: &Keeper,
    ) -> Result<Reach, String> {
        self.granted.write(&dirs.run)?;
        let tools = Tools::open(Given {
            lease: attempt.lease,
            assigned: &attempt.assigned,
            workspace: dirs.workspace.clone(),
            seen_at: self.seen_at.unwrap_or_else(|| dirs.workspace.clone()),
            keeper: keeper.clone(),
            people: attempt.people.clone(),
            facts: attempt.facts.clone(),
            children: Arc::new(attempt.subtasks.line()),
        });
        let tab = Tab::at(attempt.lease.task, dirs.root.join(USED));
        let endpoint = self.plan.tools();
        let models = &attempt.host.models;
        Ok(Reach {
            line: self.plan.open(models, &dirs.run, &tools, tab)?,
            host: self.host,
            env: self.env,
            endpoint: Some(endpoint),
            tools: Some(tools),
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
        let own = self.dirs.paths().workspace;
        let reach = ReachPlan {
            host,
            env,
            plan,
            granted,
            seen_at: Some(paths.workspace).filter(|seen| *seen != own),
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

    /// Its program is gone: nothing it asked for is carried out or waited for any more, and what runs
    /// after it finds no tools.
    pub(super) async fn close_reach(&mut self) {
        self.reach.line.close().await;
        if let Some(tools) = &self.reach.tools {
            tools.close();
        }
        self.reach.endpoint = None;
        for name in [URL_VARIABLE, TOKEN_VARIABLE] {
            self.reach.env.remove(name);
        }
    }

    /// Its program is gone: what it used is what was metered, and what it was refused is why it
    /// failed.
    pub(super) async fn settle(&mut self, end: &mut End) {
        self.close_reach().await;
        if !end.is_stopped() {
            // A tool may have asked something when its program was gone already.
            self.of.people.program_ended();
        }
        let line = &mut self.reach.line;
        end.usage = line.usage(end.usage.take());
        if matches!(end.why, Why::Ended | Why::Lingering | Why::Refused) {
            end.failure = line.failure(end.failure.take());
        }
    }
}
