//! What an attempt reaches the world by, and what it is granted: before its program starts, and
//! while that runs.

use std::collections::BTreeMap;
use std::path::Path;

use conductor_protocol::event::{AttemptThrottled, AttemptUsage};
use conductor_protocol::terms::Answer;

use super::{Attempt, Watch};
use crate::dirs::Paths;
use crate::models::{Line, Models, Notice, Plan};
use crate::runtime::Host;
use crate::secrets::{self, Granted};

/// What a program will be given.
#[derive(Debug)]
pub(super) struct Reach {
    /// What the agent lends it: of keys, placeholders.
    pub(super) host: Host,
    /// What stands in its environment besides what its runtime says.
    pub(super) env: BTreeMap<String, String>,
    plan: Plan,
    granted: Granted,
}

impl Attempt {
    /// Works out what its programs are given; from then on its secrets are masked.
    /// `is_own_network` says that its loopback is not the agent's.
    pub(super) async fn reach(&self, paths: &Paths, is_own_network: bool) -> Result<Reach, String> {
        let terms = self.assigned.terms.as_deref();
        let names = terms.map(|t| t.secrets.as_slice()).unwrap_or_default();
        let granted = self.host.secrets.grant(names)?;
        let plan = Plan::new(&self.host.models, &self.assigned, paths, is_own_network).await?;
        let keys = plan.secrets().map(|key| key.expose().as_bytes());
        self.masks.set(keys.chain(granted.values()));
        let mut env = plan.env();
        if !granted.is_empty() {
            let dir = Granted::dir(&paths.run).display().to_string();
            env.insert(secrets::VARIABLE.to_owned(), dir);
        }
        Ok(Reach {
            host: plan.host(&self.host),
            env,
            plan,
            granted,
        })
    }

    /// Does what is to be done about what was noticed of its models.
    pub(super) fn notice(&self, notice: Notice, line: &mut Line, watch: &mut Watch) {
        let lease = self.lease;
        match notice {
            Notice::Usage(usage) => self.tell(AttemptUsage { lease, usage }),
            Notice::Throttled(until_ms) => self.tell(AttemptThrottled { lease, until_ms }),
            Notice::Ask(_) => line.decide(Answer::Deny),
            Notice::Over => watch.on_refusal(),
        }
    }
}

impl Reach {
    /// Puts it where the program finds it: `run` is the directory it shares with the agent.
    pub(super) fn open(self, models: &Models, run: &Path) -> Result<Line, String> {
        self.granted.write(run)?;
        self.plan.open(models, run)
    }
}
