//! How attempts reach their models, and hosts they may: through proxies of their own, so that no
//! key is where they run.
//!
//! [`Models`] is what the agent has; [`Plan`] what an attempt will get, worked out before its
//! directories are there; [`Line`] what is open while it runs.

mod pace;
mod settle;
mod tab;
mod ways;

use std::collections::BTreeMap;
use std::sync::Arc;

use conductor_modelproxy::egress::{AllowList, Egress};
use conductor_modelproxy::keys::{Key, Keys};
use conductor_modelproxy::policy::Policy;
use conductor_modelproxy::upstream::is_private;
use conductor_modelproxy::{
    Access, Listener, Prices, Provider, Proxy, Report, Secret, Terms, Upstream,
};
use conductor_protocol::event::{AttemptAssigned, Usage};
use conductor_protocol::ids::UnixMs;
use conductor_protocol::spec::Runtime as Kind;
use conductor_protocol::terms::{Answer, Budget, Network, OnReached};
use conductor_protocol::{OutcomeClass, RunSpec};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dirs::Paths;
use crate::runtime::Host;
use pace::Pace;
use settle::Findings;
pub use settle::{Limit, time_limit};
pub(crate) use tab::Tab;
use ways::{EGRESS_SOCKET, MODEL_SOCKET, Ways};

/// How long a program waits for an answer where people may have to be asked first: a day.
const PATIENCE_MS: u64 = 86_400_000;

/// What an agent has to reach models by. One for all its attempts.
#[derive(Clone, Debug)]
pub struct Models {
    upstream: Option<Upstream>,
    accesses: BTreeMap<Provider, Access>,
    prices: Arc<Prices>,
}

impl Models {
    /// As the agent's environment says: keys, where the providers are, what models cost.
    pub fn from_env() -> Result<Self, String> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let own = var("CONDUCTOR_PRICES");
        let own = own.map(|path| {
            let read =
                std::fs::read_to_string(&path).map_err(|e| format!("CONDUCTOR_PRICES {path}: {e}"));
            read.map(|text| (path, text))
        });
        let own = own.transpose()?;
        let prices = Prices::new(own.as_ref().map(|(_, text)| text.as_str()));
        let prices = prices.map_err(|e| match &own {
            Some((path, _)) => format!("CONDUCTOR_PRICES {path}: {e}"),
            None => e,
        })?;
        let mut accesses = BTreeMap::new();
        for (provider, variable) in [
            (Provider::Anthropic, "ANTHROPIC_BASE_URL"),
            (Provider::OpenAi, "OPENAI_BASE_URL"),
        ] {
            let Some(keys) = Keys::from_env(provider, var) else {
                continue;
            };
            let url = var(variable).unwrap_or_else(|| provider.default_url().to_owned());
            let parsed = url.parse().ok().filter(is_private);
            let url = parsed.ok_or_else(|| {
                format!("{variable} {url:?} would have the key sent in the clear; use https, or http to this machine alone")
            })?;
            accesses.insert(provider, Access { url, keys });
        }
        let upstream = if accesses.is_empty() {
            None
        } else {
            hide_memory();
            Some(Upstream::from_env()?)
        };
        Ok(Self {
            upstream,
            accesses,
            prices: Arc::new(prices),
        })
    }

    /// The providers that a run asks, of those there is a key for.
    fn providers(&self, run: &RunSpec) -> Vec<Provider> {
        let asked: &[Provider] = match run.runtime() {
            Kind::Claude => &[Provider::Anthropic],
            Kind::Codex => &[Provider::OpenAi],
            Kind::Acp => &[Provider::Anthropic, Provider::OpenAi],
            Kind::Command | Kind::Noop => &[],
        };
        let has_key = |p: &&Provider| self.accesses.contains_key(p);
        asked.iter().filter(has_key).copied().collect()
    }
}

/// Keys are in this process's memory and environment, and in a sandbox that hides no processes
/// its programs run as the same user: from now on no other process of that user can look, and no
/// dump of its memory is left when it crashes.
fn hide_memory() {
    if let Err(e) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(error = %e, "programs of the same user can read this agent's memory");
    }
}

/// What an attempt will be given.
#[derive(Debug)]
pub struct Plan {
    ways: Ways,
    keys: BTreeMap<Provider, Key>,
    terms: Terms,
    hosts: Option<AllowList>,
    /// Ports of this machine, where its network is the attempt's too.
    ports: Vec<(&'static str, Listener)>,
}

impl Plan {
    /// What `assigned` will be given, where it finds its directories at `paths`. `is_own_network`
    /// says that its loopback is not the agent's.
    pub async fn new(
        models: &Models,
        assigned: &AttemptAssigned,
        paths: &Paths,
        is_own_network: bool,
    ) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for provider in models.providers(&assigned.run) {
            if let Some(access) = models.accesses.get(&provider) {
                keys.insert(provider, access.keys.get().await?);
            }
        }
        let task = assigned.terms.as_deref();
        let network = task.and_then(|t| t.sandbox.as_ref()).map(|s| &s.network);
        let hosts = match network {
            Some(Network::Hosts(hosts)) => Some(AllowList::new(hosts)?),
            _ => None,
        };
        let budget = task.and_then(|t| t.budget).unwrap_or_default();
        let terms = Terms {
            placeholder: format!("conductor-{}", uuid::Uuid::new_v4().simple()),
            policy: Policy {
                models: task.map(|t| t.models.clone()).unwrap_or_default(),
                may_reach_out: network == Some(&Network::Full),
                counts_money: budget.usd.is_some(),
            },
            budget,
            before: assigned
                .before
                .as_ref()
                .and_then(|b| b.usage.clone())
                .unwrap_or_default(),
        };
        let mut ways = Ways::new(
            paths,
            assigned.run.runtime(),
            !keys.is_empty(),
            hosts.is_some(),
        );
        let mut ports = Vec::new();
        if !is_own_network {
            for (socket, port) in ways.ports_mut() {
                let (listener, free) =
                    Listener::tcp().map_err(|e| format!("no port is free on loopback: {e}"))?;
                *port = free;
                ports.push((socket, listener));
            }
        }
        Ok(Self {
            ways,
            keys,
            terms,
            hosts,
            ports,
        })
    }

    /// What the agent lends its program: of keys, nothing but placeholders.
    pub fn host(&self, host: &Host) -> Host {
        let mut host = host.clone();
        if !self.keys.is_empty() {
            let keys = self
                .keys
                .iter()
                .map(|(p, key)| (*p, key.variable))
                .collect();
            host.claude_env = self.ways.model_env(&keys, &self.terms.placeholder);
            host.codex_env.clone_from(&host.claude_env);
        }
        host
    }

    /// What else is in its environment.
    pub fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.ways.env(self.ports.is_empty());
        if !self.keys.is_empty() && self.terms.budget.on_reached == OnReached::Ask {
            // While somebody is asked its requests wait: for as long as that takes.
            env.insert("API_TIMEOUT_MS".to_owned(), PATIENCE_MS.to_string());
        }
        env
    }

    /// Ports of this machine that its programs need.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let ports = (!self.ports.is_empty()).then(|| self.ways.ports());
        ports.into_iter().flatten()
    }

    /// What must not be shown.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.keys.values().map(|key| &key.secret)
    }

    /// Opens it: the sockets in `run`, where that is on this machine. What is used goes on `tab`.
    pub(crate) fn open(
        self,
        models: &Models,
        run: &std::path::Path,
        tab: Tab,
    ) -> Result<Line, String> {
        let Self {
            ways,
            mut terms,
            hosts,
            mut ports,
            ..
        } = self;
        let mut listeners = |socket: &'static str| {
            let port = ports.iter().position(|(name, _)| *name == socket);
            let port = port.map(|i| ports.swap_remove(i).1);
            let is_needed = port.is_none() || ways.uses_socket(socket);
            let file = is_needed.then(|| Listener::unix(run, socket)).transpose();
            let file = file.map_err(|e| format!("its socket {socket} cannot be made: {e}"))?;
            Ok::<_, String>(port.into_iter().chain(file).collect::<Vec<_>>())
        };
        terms.before = tab.total(&terms.before);
        let (budget, before) = (terms.budget, terms.before.clone());
        let (mut proxy, mut reports) = (None, None);
        if let Some(upstream) = models.upstream.clone().filter(|_| ways.has_models()) {
            let accesses = models.accesses.clone();
            let prices = Arc::clone(&models.prices);
            let started = Proxy::start(listeners(MODEL_SOCKET)?, terms, upstream, accesses, prices);
            (proxy, reports) = (Some(started.0), Some(started.1));
        }
        let egress = match hosts {
            Some(hosts) => Some(Egress::start(listeners(EGRESS_SOCKET)?, hosts)),
            None => None,
        };
        Ok(Line {
            proxy,
            reports,
            _egress: egress,
            before,
            tab,
            budget,
            pace: Pace::new(budget),
            findings: Findings::default(),
        })
    }
}

/// What the agent is to do about what was noticed.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// To say what the task has used so far.
    Usage(Usage),
    /// To say that the provider has no more, and until when.
    Throttled(Option<UnixMs>),
    /// To ask somebody whether it may go on, though so much is used; its requests wait for
    /// [`Line::decide`].
    Ask(String),
    /// To give it a while to end by itself: nothing it asks will be answered.
    Over,
}

/// What is open for an attempt that runs. Dropped, it is closed.
#[derive(Debug)]
pub struct Line {
    proxy: Option<Proxy>,
    reports: Option<mpsc::UnboundedReceiver<Report>>,
    _egress: Option<Egress>,
    before: Usage,
    tab: Tab,
    budget: Budget,
    pace: Pace,
    findings: Findings,
}

impl Line {
    /// One of which nothing is open.
    pub fn none() -> Self {
        Self {
            proxy: None,
            reports: None,
            _egress: None,
            before: Usage::default(),
            tab: Tab::default(),
            budget: Budget::default(),
            pace: Pace::new(Budget::default()),
            findings: Findings::default(),
        }
    }

    /// Whether what it uses is metered: then the figures of its program are not needed.
    pub fn is_metered(&self) -> bool {
        self.proxy.is_some()
    }

    /// The next thing to do. It may be dropped and called again.
    pub async fn next(&mut self) -> Notice {
        loop {
            let report = match &mut self.reports {
                Some(reports) => reports.recv().await,
                None => None,
            };
            let Some(report) = report else {
                self.reports = None;
                return std::future::pending().await;
            };
            if let Some(notice) = self.take(report) {
                return notice;
            }
        }
    }

    fn take(&mut self, report: Report) -> Option<Notice> {
        match report {
            Report::Metered(usage) => {
                let total = settle::total(&self.before, &usage, None);
                self.tab.note(&total);
                let is_due = self.pace.is_due(&usage, Instant::now());
                is_due.then_some(Notice::Usage(total))
            }
            Report::Throttled { until_ms } => Some(Notice::Throttled(until_ms)),
            Report::Reached {
                account,
                is_held: true,
                ..
            } => Some(Notice::Ask(account)),
            Report::Reached { account, .. } => {
                self.findings.budget(&account).then_some(Notice::Over)
            }
            Report::Refused(class, message) => self
                .findings
                .refused(class, message)
                .then_some(Notice::Over),
        }
    }

    /// Somebody decided about a budget that is used up: as much again, or no more.
    pub fn decide(&mut self, answer: Answer) {
        let Some(proxy) = &self.proxy else { return };
        match answer {
            Answer::Allow => proxy.extend(&self.budget),
            Answer::Deny => proxy.deny(),
        }
    }

    /// Its program is gone: what was under way is counted.
    pub async fn close(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            proxy.close().await;
        }
    }

    /// What the task has used by now, where that was metered; `said` is what the program says.
    pub fn usage(&self, said: Option<Usage>) -> Option<Usage> {
        match &self.proxy {
            Some(proxy) if proxy.usage().turns > 0 => {
                Some(settle::total(&self.before, &proxy.usage(), said))
            }
            _ => said,
        }
    }

    /// Why it failed, given what its program says of that.
    pub fn failure(
        &mut self,
        said: Option<(OutcomeClass, String)>,
    ) -> Option<(OutcomeClass, String)> {
        // What was reported last may not have been looked at.
        while let Some(Ok(report)) = self.reports.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
            self.take(report);
        }
        self.findings.settle(said)
    }
}

#[cfg(test)]
mod tests;
