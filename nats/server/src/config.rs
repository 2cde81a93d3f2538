//! The server's configuration, from the templates in `nats/`.

use std::path::PathBuf;

const STANDALONE: &str = include_str!("../../standalone.conf");
const CLUSTER: &str = include_str!("../../cluster.conf");
const TLS: &str = include_str!("../../tls.conf");
const LEAF_HUB: &str = include_str!("../../leaf-hub.conf");
const LEAF_REMOTE: &str = include_str!("../../leaf-remote.conf");
/// The variable that holds the key of what JetStream keeps on disk: not in any file beside it.
const STORE_KEY: &str = "CONDUCTOR_STORE_KEY";
/// The variable that holds the key before it.
const PREVIOUS_STORE_KEY: &str = "CONDUCTOR_PREVIOUS_STORE_KEY";
const OPERATOR: &str = include_str!("../../operator.conf");

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Its name.
    pub name: String,
    /// Client port on loopback; `None` for any free one.
    pub port: Option<u16>,
    /// Monitoring port on loopback; `None` for any free one.
    pub monitor_port: Option<u16>,
    /// Where JetStream keeps its files.
    pub store_dir: PathBuf,
    /// `always`, or a duration such as `2m`.
    pub sync_interval: String,
    /// Most bytes JetStream may keep on disk; `None` for what the disk holds.
    pub max_file: Option<u64>,
    /// For a node of a cluster.
    pub cluster: Option<Cluster>,
    /// Who may do what; without it whoever reaches the server may do everything.
    pub operator: Option<OperatorMode>,
    /// How links of clients are encrypted; without it they are not, which suits loopback alone.
    pub tls: Option<TlsFiles>,
    /// For one that is linked with a server of another region.
    pub leaf: Option<Leaf>,
    /// Keys by which JetStream encrypts what it keeps on disk; a store that was begun without them is
    /// encrypted when it starts with them.
    pub store_keys: Option<StoreKeys>,
}

/// Certificate and key of a server, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA whose certificates clients must have; without it they need none.
    pub client_ca: Option<PathBuf>,
}

/// How a server is linked with those of other regions. Both ends show certificates, and each wants
/// the other's signed by its `client_ca`.
#[derive(Clone, Debug)]
pub enum Leaf {
    /// The others come to this port, on loopback.
    Hub(u16, TlsFiles),
    /// It goes to this port.
    Remote(u16, TlsFiles),
}

impl Leaf {
    /// What a server's configuration says of it.
    pub fn render(&self) -> String {
        let (template, port, tls) = match self {
            Self::Hub(port, tls) => (LEAF_HUB, port, tls),
            Self::Remote(port, tls) => (LEAF_REMOTE, port, tls),
        };
        template
            .replace("{leaf_port}", &port.to_string())
            .replace("{tls}", &tls.render())
    }
}

impl TlsFiles {
    /// The block of a server's configuration, wherever it stands.
    fn render(&self) -> String {
        let ca = |ca: &PathBuf| format!("  ca_file: \"{}\"\n  verify: true\n", ca.display());
        let block = TLS.find("tls {").and_then(|at| TLS.get(at..));
        block
            .unwrap_or_default()
            .replace("{cert}", &self.cert.display().to_string())
            .replace("{key}", &self.key.display().to_string())
            .replace(
                "{verify}",
                &self.client_ca.as_ref().map_or_else(String::new, ca),
            )
    }
}

/// Keys of a store; never shown.
#[derive(Clone)]
pub struct StoreKeys {
    /// The key it has from now on.
    pub current: String,
    /// The one it may have had until now: the server changes it for the other when it starts. Not
    /// for a node of a cluster, which then removes what it has (2.15.1).
    pub previous: Option<String>,
}

impl std::fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreKeys").finish_non_exhaustive()
    }
}

impl StoreKeys {
    /// The lines of the server's configuration that say where its keys are.
    fn render(&self) -> String {
        let mut text = format!("  cipher: aes\n  key: ${STORE_KEY}\n");
        if self.previous.is_some() {
            text += &format!("  prev_key: ${PREVIOUS_STORE_KEY}\n");
        }
        text
    }

    /// The variables they are in. The server reads a variable as it reads its configuration: bare
    /// digits would be a number, so each is quoted.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let quoted = |key: &str| {
            let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{escaped}\"")
        };
        let mut variables = vec![(STORE_KEY, quoted(&self.current))];
        variables.extend(
            self.previous
                .iter()
                .map(|key| (PREVIOUS_STORE_KEY, quoted(key))),
        );
        variables
    }
}

/// Whose tokens a server trusts, and where it keeps those of accounts.
#[derive(Clone, Debug)]
pub struct OperatorMode {
    /// The operator's token.
    pub token: String,
    /// Public key of the servers' own account.
    pub system_account: String,
    /// Directory of the accounts' tokens, each in a file of its account's key.
    pub jwt_dir: PathBuf,
}

/// A node's place in its cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Port for the other nodes, on loopback.
    pub port: u16,
    /// Ports of all nodes.
    pub peers: Vec<u16>,
    /// Whether it tells clients and other nodes no address, so that everybody comes by the
    /// way they were told: there may be something in between.
    pub is_hidden: bool,
    /// How links between the nodes are encrypted: with certificates on both ends, where it has a CA.
    pub tls: Option<TlsFiles>,
}

impl OperatorMode {
    /// What a server's configuration says of it.
    pub fn render(&self) -> String {
        OPERATOR
            .replace("{operator}", &self.token)
            .replace("{system_account}", &self.system_account)
            .replace("{jwt_dir}", &self.jwt_dir.display().to_string())
    }
}

impl ServerConfig {
    /// A single durable node.
    pub fn standalone(name: impl Into<String>, store_dir: PathBuf) -> Self {
        Self {
            name: name.into(),
            port: None,
            monitor_port: None,
            store_dir,
            sync_interval: "always".to_owned(),
            max_file: None,
            cluster: None,
            operator: None,
            tls: None,
            leaf: None,
            store_keys: None,
        }
    }

    /// The configuration file's text.
    pub fn render(&self) -> String {
        let port = |p: Option<u16>| p.map_or_else(|| "-1".to_owned(), |p| p.to_string());
        let mut text = STANDALONE
            .replace("{name}", &self.name)
            .replace("{port}", &port(self.port))
            .replace("{monitor_port}", &port(self.monitor_port))
            .replace("{store_dir}", &self.store_dir.display().to_string())
            .replace("{sync_interval}", &self.sync_interval);
        if let Some(bytes) = self.max_file {
            let limit = format!("jetstream {{\n  max_file: {bytes}\n");
            text = text.replacen("jetstream {\n", &limit, 1);
        }
        if let Some(keys) = &self.store_keys {
            let cipher = format!("jetstream {{\n{}", keys.render());
            text = text.replacen("jetstream {\n", &cipher, 1);
        }
        if let Some(tls) = &self.tls {
            text += &tls.render();
        }
        if let Some(leaf) = &self.leaf {
            text += &leaf.render();
        }
        if let Some(operator) = &self.operator {
            text += &operator.render();
        }
        if let Some(cluster) = &self.cluster {
            let routes: Vec<String> = cluster
                .peers
                .iter()
                .map(|p| format!("\"nats://127.0.0.1:{p}\""))
                .collect();
            text += &CLUSTER
                .replace("{cluster_port}", &cluster.port.to_string())
                .replace("{routes}", &routes.join(", "));
            if let Some(tls) = &cluster.tls {
                let links = format!("cluster {{\n{}", tls.render());
                text = text.replacen("cluster {\n", &links, 1);
            }
            if cluster.is_hidden {
                // Where nobody listens; without an address of its own it would tell the real one.
                let hidden = "cluster {\n  no_advertise: true\n  advertise: \"127.0.0.1:1\"\n";
                text = text.replacen("cluster {\n", hidden, 1);
            }
        }
        text
    }
}
