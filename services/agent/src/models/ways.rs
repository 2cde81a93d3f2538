//! Where programs are told to look for their models and hosts: data, no effects.

use std::collections::BTreeMap;
use std::path::PathBuf;

use conductor_modelproxy::Provider;
use conductor_modelproxy::listen::SOCKET_PATH_MAX;
use conductor_modelproxy::policy::OPENAI_PREFIX;
use conductor_protocol::spec::Runtime as Kind;

use crate::dirs::Paths;
use crate::forward;
use crate::tools::Endpoint;

/// The socket of the model proxy and of the tools, in the directory shared with the agent.
pub(super) const MODEL_SOCKET: &str = "model.sock";
/// The socket of the way to other hosts.
pub(super) const EGRESS_SOCKET: &str = "egress.sock";
/// The ports they have in a network of the attempt's own.
const MODEL_PORT: u16 = 8190;
const EGRESS_PORT: u16 = 8191;
/// What the model proxy is called where a name is needed and none is looked up. The CLI speaks
/// TLS into the socket unless it is plain HTTP (agent-facts 0.5).
const MODEL_HOST: &str = "http://model.conductor";
/// What is reached without the proxy for other hosts.
const NOT_BY_PROXY: &str = "127.0.0.1,localhost,model.conductor";

/// Ways out of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    run: PathBuf,
    /// Whether the program reaches its models by the socket itself: it knows such, and ours is not too
    /// deep.
    by_socket: bool,
    /// The port that leads to the same socket, for all who know none.
    port: u16,
    egress_port: Option<u16>,
    has_models: bool,
}

impl Ways {
    pub(super) fn new(paths: &Paths, runtime: Kind, has_models: bool, has_hosts: bool) -> Self {
        let socket = paths.run.join(MODEL_SOCKET);
        let fits = socket.as_os_str().len() <= SOCKET_PATH_MAX;
        Self {
            run: paths.run.clone(),
            by_socket: has_models && runtime == Kind::Claude && fits,
            port: MODEL_PORT,
            egress_port: has_hosts.then_some(EGRESS_PORT),
            has_models,
        }
    }

    pub(super) fn has_models(&self) -> bool {
        self.has_models
    }

    /// Ports that are needed, and the socket that each leads to.
    pub(super) fn ports_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut u16)> {
        let egress = self.egress_port.as_mut().map(|port| (EGRESS_SOCKET, port));
        [(MODEL_SOCKET, &mut self.port)].into_iter().chain(egress)
    }

    /// The ports that programs are told of.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        [self.port].into_iter().chain(self.egress_port)
    }

    /// Where a program finds its tools.
    pub(super) fn tools(&self, placeholder: &str) -> Endpoint {
        Endpoint::at(self.port, placeholder)
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
        let base = if self.by_socket {
            MODEL_HOST.to_owned()
        } else {
            format!("http://127.0.0.1:{}", self.port)
        };
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
                env.insert(name.to_owned(), NOT_BY_PROXY.to_owned());
            }
        }
        if is_forwarded {
            let egress = self.egress_port.map(|port| (port, EGRESS_SOCKET));
            let ports = [(self.port, MODEL_SOCKET)].into_iter().chain(egress);
            let ports: Vec<(u16, PathBuf)> = ports
                .map(|(port, socket)| (port, self.run.join(socket)))
                .collect();
            env.insert(forward::VARIABLE.to_owned(), forward::value(&ports));
        }
        env
    }

    /// Has a program that goes out by a proxy of the machine's reach its tools without it.
    pub(super) fn spare_proxy(env: &mut BTreeMap<String, String>) {
        if env.contains_key("HTTPS_PROXY") {
            let name = "NO_PROXY".to_owned();
            env.entry(name).or_insert_with(|| NOT_BY_PROXY.to_owned());
        }
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
        assert!(ways.uses_socket(MODEL_SOCKET) && !ways.uses_socket(EGRESS_SOCKET));
        // Its tools are at a port all the same: clients of theirs know no sockets.
        assert_eq!(
            shown(&ways.env(true)),
            ["CONDUCTOR_FORWARD=8190=/run/conductor/model.sock"]
        );
        assert!(ways.env(false).is_empty(), "the agent listens itself");
        assert_eq!(ways.tools("p").url, "http://127.0.0.1:8190/mcp");
    }

    #[test]
    fn tools_are_not_looked_for_by_a_proxy_of_the_machine() {
        let mut env = BTreeMap::new();
        Ways::spare_proxy(&mut env);
        assert!(env.is_empty());
        env.insert("HTTPS_PROXY".to_owned(), "http://proxy:3128".to_owned());
        Ways::spare_proxy(&mut env);
        assert!(env["NO_PROXY"].contains("127.0.0.1"));
        env.insert("NO_PROXY".to_owned(), "own".to_owned());
        Ways::spare_proxy(&mut env);
        assert_eq!(env["NO_PROXY"], "own");
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
