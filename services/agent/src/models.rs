//! How attempts reach their models, their tools, and hosts they may: through proxies of their own, so
//! that no key is where they run.
//!
//! [`Models`] is what the agent has; [`Plan`] what an attempt will get, worked out before its
//! directories are there; [`Line`] what is open while it runs.

mod line;
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
use conductor_modelproxy::{Access, Listener, Prices, Provider, Proxy, Secret, Terms, Upstream};
use conductor_protocol::RunSpec;
use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::spec::Runtime as Kind;
use conductor_protocol::terms::{Network, OnReached};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::dirs::Paths;
use crate::runtime::Host;
use crate::tools::{Endpoint, TOKEN_VARIABLE, Tools, URL_VARIABLE};
pub use line::{Line, Notice};
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
        Ways::spare_proxy(&mut host.claude_env);
        Ways::spare_proxy(&mut host.codex_env);
        host
    }

    /// Where its program finds its tools: under the placeholder, which is this attempt's alone.
    pub fn tools(&self) -> Endpoint {
        self.ways.tools(&self.terms.placeholder)
    }

    /// What else is in its environment.
    pub fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.ways.env(self.ports.is_empty());
        let Endpoint { url, token } = self.tools();
        env.insert(URL_VARIABLE.to_owned(), url);
        env.insert(TOKEN_VARIABLE.to_owned(), token);
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
        tools: &Tools,
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
        // Whoever has no models has the socket for its tools alone, and asks nobody by it.
        let upstream = models.upstream.clone().filter(|_| ways.has_models());
        let is_metered = upstream.is_some();
        let accesses = models.accesses.clone();
        let accesses = if is_metered {
            accesses
        } else {
            BTreeMap::new()
        };
        let (prices, door) = (Arc::clone(&models.prices), Some(tools.door()));
        let listening = listeners(MODEL_SOCKET)?;
        let (proxy, reports) = Proxy::start(listening, terms, upstream, accesses, prices, door);
        if is_metered {
            tools.know_budget(proxy.account());
        }
        let egress = match hosts {
            Some(hosts) => Some(Egress::start(listeners(EGRESS_SOCKET)?, hosts)),
            None => None,
        };
        Ok(Line {
            proxy: Some(proxy),
            reports: Some(reports),
            is_metered,
            _egress: egress,
            before,
            tab,
            budget,
            pace: Pace::new(budget),
            findings: Findings::default(),
        })
    }
}

#[cfg(test)]
mod tests;
