//! Where programs are told to look for their models and hosts: data, no effects.

use std::collections::BTreeMap;
use std::path::PathBuf;

use conductor_modelproxy::Provider;
use conductor_modelproxy::listen::SOCKET_PATH_MAX;
use conductor_modelproxy::policy::OPENAI_PREFIX;
use conductor_protocol::spec::Runtime as Kind;

use crate::dirs::Paths;
use crate::forward;

/// The socket of the model proxy, in the directory shared with the agent.
pub(super) const MODEL_SOCKET: &str = "model.sock";
/// The socket of the way to other hosts.
pub(super) const EGRESS_SOCKET: &str = "egress.sock";
/// The ports they have in a network of the attempt's own.
const MODEL_PORT: u16 = 8190;
const EGRESS_PORT: u16 = 8191;
/// What the model proxy is called where a name is needed and none is looked up. The CLI speaks
/// TLS into the socket unless it is plain HTTP (agent-facts 0.5).
const MODEL_HOST: &str = "http://model.conductor";

/// Ways out of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    run: PathBuf,
    /// Whether the program knows unix sockets, and can reach ours.
    by_socket: bool,
    model_port: Option<u16>,
    egress_port: Option<u16>,
    has_models: bool,
}

impl Ways {
    pub(super) fn new(paths: &Paths, runtime: Kind, has_models: bool, has_hosts: bool) -> Self {
        let socket = paths.run.join(MODEL_SOCKET);
        let fits = socket.as_os_str().len() <= SOCKET_PATH_MAX;
        let by_socket = runtime == Kind::Claude && fits;
        Self {
            run: paths.run.clone(),
            by_socket,
            model_port: (has_models && !by_socket).then_some(MODEL_PORT),
            egress_port: has_hosts.then_some(EGRESS_PORT),
            has_models,
        }
    }

    pub(super) fn has_models(&self) -> bool {
        self.has_models
    }

    /// Ports that are needed, and the socket that each leads to.
    pub(super) fn ports_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut u16)> {
        let model = self.model_port.as_mut().map(|port| (MODEL_SOCKET, port));
        let egress = self.egress_port.as_mut().map(|port| (EGRESS_SOCKET, port));
        model.into_iter().chain(egress)
    }

    /// The ports that programs are told of.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        [self.model_port, self.egress_port].into_iter().flatten()
    }

    /// Whether programs are told of a socket itself.
    pub(super) fn uses_socket(&self, socket: &str) -> bool {
        socket == MODEL_SOCKET && self.by_socket
    }

    /// How a program finds its models, and what it has for a key: in the variable in which the
    /// real one would be.
    pub(super) fn model_env(
        &self,
        keys: &BTreeMap<Provider, &'static str>,
        placeholder: &str,
    ) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            env.insert(name.to_owned(), value);
        };
        let here = self
            .model_port
            .map(|port| format!("http://127.0.0.1:{port}"));
        let base = here.unwrap_or_else(|| MODEL_HOST.to_owned());
        for (provider, variable) in keys {
            set(variable, placeholder.to_owned());
            match provider {
                Provider::Anthropic => set("ANTHROPIC_BASE_URL", base.clone()),
                Provider::OpenAi => set("OPENAI_BASE_URL", format!("{base}{OPENAI_PREFIX}")),
            }
        }
        if self.by_socket {
            let socket = self.run.join(MODEL_SOCKET);
            set("ANTHROPIC_UNIX_SOCKET", socket.display().to_string());
        }
        env
    }

    /// What else a program is told. `is_forwarded` says that the reaper has to open the ports.
    pub(super) fn env(&self, is_forwarded: bool) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        if let Some(port) = self.egress_port {
            let proxy = format!("http://127.0.0.1:{port}");
            for name in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
                env.insert(name.to_owned(), proxy.clone());
            }
            for name in ["NO_PROXY", "no_proxy"] {
                env.insert(
                    name.to_owned(),
                    "127.0.0.1,localhost,model.conductor".to_owned(),
                );
            }
        }
        let ports = [
            (self.model_port, MODEL_SOCKET),
            (self.egress_port, EGRESS_SOCKET),
        ];
        let ports = ports.map(|(port, socket)| port.map(|port| (port, self.run.join(socket))));
        let ports: Vec<(u16, PathBuf)> = ports.into_iter().flatten().collect();
        if is_forwarded && !ports.is_empty() {
            env.insert(forward::VARIABLE.to_owned(), forward::value(&ports));
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(run: &str) -> Paths {
        let at = |name: &str| PathBuf::from(run).join("..").join(name);
        Paths {
            workspace: at("workspace"),
            home: at("home"),
            tmp: at("tmp"),
            run: run.into(),
        }
    }

    fn shown(env: &BTreeMap<String, String>) -> Vec<String> {
        env.iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn claude_is_told_of_the_socket() {
        let ways = Ways::new(&paths("/run/conductor"), Kind::Claude, true, false);
        let keys = BTreeMap::from([(Provider::Anthropic, "CLAUDE_CODE_OAUTH_TOKEN")]);
        assert_eq!(
            shown(&ways.model_env(&keys, "p")),
            [
                "ANTHROPIC_BASE_URL=http://model.conductor",
                "ANTHROPIC_UNIX_SOCKET=/run/conductor/model.sock",
                "CLAUDE_CODE_OAUTH_TOKEN=p",
            ]
        );
        assert!(ways.env(true).is_empty());
        assert!(ways.uses_socket(MODEL_SOCKET) && !ways.uses_socket(EGRESS_SOCKET));
    }

    #[test]
    fn a_socket_that_lies_too_deep_is_a_port() {
        let deep = format!("/{}", "d".repeat(100));
        let mut ways = Ways::new(&paths(&deep), Kind::Claude, true, false);
        for (_, port) in ways.ports_mut() {
            *port = 4711;
        }
        let keys = BTreeMap::from([(Provider::Anthropic, "ANTHROPIC_API_KEY")]);
        assert_eq!(
            shown(&ways.model_env(&keys, "p")),
            [
                "ANTHROPIC_API_KEY=p",
                "ANTHROPIC_BASE_URL=http://127.0.0.1:4711"
            ]
        );
    }

    #[test]
    fn others_are_told_of_ports_that_the_reaper_opens() {
        let ways = Ways::new(&paths("/run/conductor"), Kind::Acp, true, true);
        let keys = BTreeMap::from([
            (Provider::Anthropic, "ANTHROPIC_API_KEY"),
            (Provider::OpenAi, "OPENAI_API_KEY"),
        ]);
        assert_eq!(
            shown(&ways.model_env(&keys, "p")),
            [
                "ANTHROPIC_API_KEY=p",
                "ANTHROPIC_BASE_URL=http://127.0.0.1:8190",
                "OPENAI_API_KEY=p",
                "OPENAI_BASE_URL=http://127.0.0.1:8190/openai/v1",
            ]
        );
        let env = ways.env(true);
        assert_eq!(
            env["CONDUCTOR_FORWARD"],
            "8190=/run/conductor/model.sock 8191=/run/conductor/egress.sock"
        );
        assert_eq!(env["HTTPS_PROXY"], "http://127.0.0.1:8191");
        assert!(
            !ways.env(false).contains_key("CONDUCTOR_FORWARD"),
            "the agent listens itself"
        );
    }
}
