//! `conductor access …`, `provision`, `agent enroll` and `agent revoke`: who may do what.

mod rotate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor_access::keyring::{AccountToken, STANDING};
use conductor_access::rights;
use conductor_access::{Credentials, Keyring};
use conductor_eventlog::jetstream::provision::{Provision, Risk};
use conductor_eventlog::jetstream::{Connect, Connection};
use conductor_protocol::AgentId;
use conductor_protocol::ids::{InvalidName, Namespace, QueueName, is_valid_name};
use conductor_protocol::subject::private_inbox;
use serde_json::json;

use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::run::access::{keys_dir, now_s};
use crate::settings::Settings;

/// Largest token that servers take: an introduction has 4 KiB, and the client library's part of it.
const TOKEN_BYTES_MAX: usize = 3_500;

/// Where the keys are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeysArgs {
    /// Directory of the cell's keys [default: keys/ in the data directory]
    #[arg(long, env = "CONDUCTOR_KEYS", value_name = "DIR")]
    keys: Option<PathBuf>,
}

impl KeysArgs {
    pub(crate) fn dir(&self, settings: &Settings) -> PathBuf {
        self.keys
            .clone()
            .unwrap_or_else(|| keys_dir(&settings.data_dir))
    }

    /// The keys, which must be there.
    pub(crate) fn open(&self, settings: &Settings) -> Outcome<Keyring> {
        let dir = self.dir(settings);
        if !dir.join("operator.nk").exists() {
            let message = format!("there are no keys in {}", dir.display());
            return Err(Failure::new(Exit::NotFound, message)
                .hint("name their directory with --keys, or make some: conductor access init"));
        }
        if !dir.join("clients.nk").exists() {
            let message = format!(
                "the keys in {} are of before clients had an account",
                dir.display()
            );
            return Err(Failure::new(Exit::NotFound, message).hint(
                "make what is missing: conductor access init; then tell the servers: conductor access \
                 revoke client",
            ));
        }
        Ok(Keyring::open_or_make(&dir, &settings.cell)?)
    }
}

/// Keys of a cell, and credentials made with them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AccessCommand {
    /// Make the keys of a cell, and what its servers are configured with
    Init {
        #[command(flatten)]
        keys: KeysArgs,
    },
    /// Make credentials for somebody who submits, or who operates
    Grant {
        #[command(flatten)]
        keys: KeysArgs,
        /// Who, for people
        name: String,
        /// Queues it may submit to; without queues and namespaces it operates: reads, commands,
        /// submits
        #[arg(long = "queue", value_name = "NAME")]
        queues: Vec<QueueName>,
        /// Namespaces it may submit in, to the queues named or else to any; none named means any
        #[arg(long = "namespace", value_name = "NAME")]
        namespaces: Vec<Namespace>,
        /// How long they are good [default: until they are revoked]
        #[arg(long, value_parser = crate::run::duration, value_name = "DURATION")]
        expires: Option<Duration>,
        /// Where they are written
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write new credentials for those that are always there; the old ones go on to be good
    Rotate {
        #[command(flatten)]
        keys: KeysArgs,
        /// Who: admin, services, operator, client, issuer, system [default: all of them]
        names: Vec<String>,
    },
    /// Have the servers refuse credentials, and cut the links that use them: all of a name that was
    /// granted some, all but the newest of those that are always there
    Revoke {
        #[command(flatten)]
        keys: KeysArgs,
        /// Whose
        #[arg(required_unless_present = "file")]
        names: Vec<String>,
        /// Those in a file, whoever they were made for
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// How to let an agent in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EnrollArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// Its name
    agent: AgentId,
    /// How long the token is good
    #[arg(long, default_value = "15m", value_parser = crate::run::duration)]
    ttl: Duration,
}

/// Make the streams of a cell, with rights that its services do not have
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProvisionArgs {
    /// Accept a risk by name: lazy-sync, new-log
    #[arg(long)]
    accept_risk: Vec<Risk>,
    /// Replicas of the streams, where they do not exist yet
    #[arg(long, default_value_t = 1)]
    replicas: usize,
}

pub(crate) async fn access(command: AccessCommand, settings: &Settings) -> Outcome {
    match command {
        AccessCommand::Init { keys } => init(&keys, settings),
        AccessCommand::Rotate { keys, names } => {
            rotate::rotate(&keys.open(settings)?, &names, settings)
        }
        AccessCommand::Revoke { keys, names, file } => {
            rotate::revoke(&keys.open(settings)?, &names, file.as_deref(), settings).await
        }
        AccessCommand::Grant {
            keys,
            name,
            queues,
            namespaces,
            expires,
            out,
        } => {
            check_name(&name)?;
            let keys = keys.open(settings)?;
            let now = now_s();
            let expires = expires.map(|e| now + e.as_secs());
            let _alone = keys.lock()?;
            let credentials = granted(&keys, &name, (&queues, &namespaces), expires, now)?;
            check_size(&credentials)?;
            credentials.write(&out)?;
            let is_client = !(queues.is_empty() && namespaces.is_empty());
            out::one(
                settings.output,
                &json!({
                    "name": name, "credentials": out, "queues": queues, "namespaces": namespaces,
                    "inbox": is_client.then(|| private_inbox(&name)),
                }),
            );
            Ok(Exit::Ok)
        }
    }
}

/// Credentials of somebody who submits to queues, in namespaces, or who operates.
fn granted(
    keys: &Keyring,
    name: &str,
    (queues, namespaces): (&[QueueName], &[Namespace]),
    expires: Option<u64>,
    now: u64,
) -> Outcome<Credentials> {
    let cell = keys.cell();
    if queues.is_empty() && namespaces.is_empty() {
        let rights = rights::operator(cell);
        return Ok(keys.credentials(name, &rights, expires, now)?);
    }
    let mut named: Vec<String> = queues.iter().map(ToString::to_string).collect();
    if named.is_empty() {
        named.push("*".to_owned());
    }
    let rights = rights::client(cell, rights::own_answers(cell, name), &named, namespaces);
    Ok(keys.client_credentials(name, &rights, expires, now)?)
}

/// Refuses a name by which others could not be told from those that are always there, and one that
/// cannot stand in the subject below which a client hears answers.
fn check_name(name: &str) -> Outcome<()> {
    if !is_valid_name(name) {
        let message = format!("{name:?} is no name: it {InvalidName}");
        return Err(Failure::usage(message).hint("for instance: ada, team-ci"));
    }
    if !STANDING.contains(&name) {
        return Ok(());
    }
    let message = format!("{name:?} is the name of credentials that are always there");
    Err(Failure::usage(message)
        .hint("take another name; new ones of these: conductor access rotate"))
}

/// Refuses credentials that no server would read.
fn check_size(credentials: &Credentials) -> Outcome<()> {
    let bytes = credentials.jwt.len();
    if bytes <= TOKEN_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "a token of {bytes} bytes; servers take about {TOKEN_BYTES_MAX}, and every queue with every \
         namespace is a line of it"
    );
    Err(Failure::usage(message)
        .hint("name fewer of --queue and --namespace, or none of --queue, which means any"))
}

/// What servers begin with, beside the keys.
fn jwt_dir(keys: &Path) -> PathBuf {
    keys.join("servers").join("jwt")
}

/// Writes accounts' tokens as servers read them.
fn write_tokens(dir: &Path, tokens: &[AccountToken]) -> Outcome<()> {
    for token in tokens {
        std::fs::write(dir.join(format!("{}.jwt", token.account)), &token.jwt)?;
    }
    Ok(())
}

/// Makes keys and credentials, and writes what every server of the cell is given.
fn init(keys: &KeysArgs, settings: &Settings) -> Outcome {
    let dir = keys.dir(settings);
    let keys = Keyring::open_or_make(&dir, &settings.cell)?;
    let now = now_s();
    keys.write_credentials(now)?;
    let jwt_dir = jwt_dir(&dir);
    std::fs::create_dir_all(&jwt_dir)?;
    write_tokens(&jwt_dir, &keys.account_tokens(now)?)?;
    let operator = conductor_nats::OperatorMode {
        token: keys.operator_token(now)?,
        system_account: keys.system_account(),
        // Beside the configuration, wherever that is put.
        jwt_dir: "jwt".into(),
    };
    let snippet = dir.join("servers").join("operator.conf");
    std::fs::write(&snippet, operator.render())?;
    out::one(
        settings.output,
        &json!({
            "keys": dir, "servers": snippet, "accounts": jwt_dir,
            "next": "include operator.conf in each server's configuration, with a copy of jwt/ beside \
                     it; then: conductor provision --creds admin.creds, and run services with services.creds",
        }),
    );
    Ok(Exit::Ok)
}

/// Connects as one of those that are always there.
async fn connect_as(keys: &Keyring, who: &str, settings: &Settings) -> Outcome<Arc<Connection>> {
    let connect = Connect {
        credentials: Some(keys.path(&format!("{who}.creds"))),
        ..settings.connect(&format!("conductor-{who}"))
    };
    Ok(Arc::new(Connection::open(&connect).await?))
}

/// Makes an agent's account, tells the servers of it, and prints a token that is good once.
pub(crate) async fn enroll(args: EnrollArgs, settings: &Settings) -> Outcome {
    let keys = args.keys.open(settings)?;
    let now = now_s();
    let account = keys.agent_account(&args.agent, now)?;
    connect_as(&keys, "system", settings)
        .await?
        .put_account(&account.jwt)
        .await?;
    let expires = now + args.ttl.as_secs();
    let token = conductor_access::issuer::one_time_token(&keys, &args.agent, expires, now)?;
    out::one(
        settings.output,
        &json!({"agent": args.agent, "token": token, "good_for": format!("{:?}", args.ttl)}),
    );
    Ok(Exit::Ok)
}

/// Revokes all credentials of an agent; the servers cut its links at once.
pub(crate) async fn revoke(keys: &KeysArgs, agent: &AgentId, settings: &Settings) -> Outcome {
    let keys = keys.open(settings)?;
    if !keys.agents().contains(agent) {
        let message = format!("no agent {agent} was ever enrolled");
        return Err(Failure::new(Exit::NotFound, message));
    }
    let now = now_s();
    keys.revoke(agent, now)?;
    let account = keys.agent_account(agent, now)?;
    connect_as(&keys, "system", settings)
        .await?
        .put_account(&account.jwt)
        .await?;
    out::one(settings.output, &json!({"agent": agent, "revoked": true}));
    Ok(Exit::Ok)
}

/// Makes the streams.
pub(crate) async fn provision(args: ProvisionArgs, settings: &Settings) -> Outcome {
    let connection = settings.open().await?;
    let how = Provision {
        replicas: args.replicas,
        accepted_risks: args.accept_risk,
        monitor_url: settings.monitor_url(),
    };
    let made = crate::run::provision_patiently(&connection, &how).await?;
    out::one(
        settings.output,
        &json!({
            "log": conductor_protocol::subject::log_stream(&settings.cell), "new": made.is_new,
            "replicas": made.replicas, "durability": made.durability.to_string(),
            "server": made.server,
        }),
    );
    Ok(Exit::Ok)
}
