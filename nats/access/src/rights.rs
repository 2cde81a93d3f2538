//! The subjects that each kind of user may use: the topology, as the servers enforce it.

use conductor_protocol::ids::{AgentId, CellId, Namespace};
use conductor_protocol::subject::{
    artifact, credential, log_stream, output, presence, private_inbox,
};

/// What a user may publish and subscribe to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// Subjects it may publish on; none named means all.
    pub publish: Vec<String>,
    /// Subjects of those it may not publish on.
    pub publish_not: Vec<String>,
    /// Subjects it may subscribe to; none named means all.
    pub subscribe: Vec<String>,
    /// Subjects of those it may not subscribe to.
    pub subscribe_not: Vec<String>,
}

impl Rights {
    /// Whether the servers take what its user publishes on a subject without wildcards.
    pub fn may_publish(&self, subject: &str) -> bool {
        let is_among = |patterns: &[String]| patterns.iter().any(|p| covers(p, subject));
        let is_named = self.publish.is_empty() || is_among(&self.publish);
        is_named && !is_among(&self.publish_not)
    }
}

/// Whether a pattern of subjects covers a subject.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", token) => return token.is_some(),
            (_, None) => return false,
            (wanted, Some(token)) if wanted != "*" && wanted != token => return false,
            _ => {}
        }
    }
    tokens.next().is_none()
}

/// A service of the cell's account that agents' accounts import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// What the cell's account exports: any agent's.
    pub exported: String,
    /// What one agent's account imports of it: its own.
    pub imported: String,
    /// Whether one request has many answers.
    pub is_streaming: bool,
}

/// Name of the consumer that is made for an agent on the log.
pub fn consumer(agent: &AgentId) -> String {
    format!("agent-{agent}")
}

/// Everything an agent can reach: it reports, prints, beats, stores and renews on subjects of its
/// own, and hears the consumer that is made for it.
pub fn services(cell: &CellId, agent: &AgentId) -> Vec<Service> {
    let (any, own) = ("*", agent.as_str());
    let api =
        |verb: &str, name: &str| format!("$JS.API.CONSUMER.{verb}.{}.{name}", log_stream(cell));
    let own_consumer = consumer(agent);
    let service = |exported: String, imported: String| Service {
        exported,
        imported,
        is_streaming: false,
    };
    let report = |name: &str| format!("conductor.{cell}.agent.{name}");
    vec![
        service(report(any), report(own)),
        service(output(cell, any, "*"), output(cell, own, "*")),
        service(artifact(cell, any, "*"), artifact(cell, own, "*")),
        service(presence(cell, any), presence(cell, own)),
        service(credential(cell, any), credential(cell, own)),
        service(api("RESET", any), api("RESET", &own_consumer)),
        Service {
            is_streaming: true,
            ..service(api("MSG.NEXT", any), api("MSG.NEXT", &own_consumer))
        },
    ]
}

/// Inboxes that whoever has no name of its own hears. In an account that several use, nobody else's
/// answers may come there.
const SHARED_INBOX: &str = "_INBOX.>";
/// Inboxes of all that have a name.
const PRIVATE_INBOXES: &str = "_INBOX_OF.>";

/// Inboxes that one user hears alone.
fn inbox_of(user: &str) -> String {
    format!("{}.>", private_inbox(user))
}

/// Where a user hears answers to what it submits, and nobody else does.
pub fn own_answers(cell: &CellId, user: &str) -> Vec<String> {
    vec![inbox_of(user), format!("conductor.{cell}.reply.{user}.>")]
}

/// Where answers are heard by everybody who has these: any NATS client asks there, unless told
/// otherwise.
pub fn shared_answers(cell: &CellId) -> Vec<String> {
    // One token alone: below the names of users is what they hear alone.
    vec![SHARED_INBOX.to_owned(), format!("conductor.{cell}.reply.*")]
}

/// The rights of an agent's user, within its account.
pub fn agent(cell: &CellId, agent: &AgentId) -> Rights {
    Rights {
        publish: services(cell, agent)
            .into_iter()
            .map(|s| s.imported)
            .collect(),
        subscribe: vec![SHARED_INBOX.to_owned()],
        ..Rights::default()
    }
}

/// The rights of an agent that is not enrolled yet: to ask for credentials, and nothing else.
pub fn enrolment(cell: &CellId, agent: &AgentId) -> Rights {
    Rights {
        publish: vec![credential(cell, agent.as_str())],
        subscribe: vec![SHARED_INBOX.to_owned()],
        ..Rights::default()
    }
}

/// The rights of whoever issues credentials to agents.
pub fn issuer(cell: &CellId) -> Rights {
    Rights {
        publish: [SHARED_INBOX, PRIVATE_INBOXES, "_R_.>"]
            .map(str::to_owned)
            .to_vec(),
        subscribe: vec![credential(cell, "*"), inbox_of("issuer")],
        ..Rights::default()
    }
}

/// The rights of orchestrators, schedulers and projectors. They speak for no agent, and may make,
/// change, purge or delete no stream; but for two on which nothing depends: signs of life, which a
/// server that restarts forgets, and old snapshots.
pub fn service(cell: &CellId) -> Rights {
    let mut publish = reading(cell);
    publish.extend([
        format!("conductor.{cell}.>"),
        SHARED_INBOX.to_owned(),
        PRIVATE_INBOXES.to_owned(),
        format!("$KV.LOCKS_{cell}.>"),
        format!("$KV.POSITIONS_{cell}.>"),
        format!("$O.SNAPSHOTS_{cell}.>"),
        "$JS.FC.>".to_owned(),
        format!("$JS.API.STREAM.CREATE.PRESENCE_{cell}"),
        format!("$JS.API.STREAM.PURGE.OBJ_SNAPSHOTS_{cell}"),
    ]);
    let publish_not = vec![
        format!("conductor.{cell}.agent.*"),
        presence(cell, "*"),
        output(cell, "*", "*"),
        artifact(cell, "*", "*"),
    ];
    let subscribe = vec![
        inbox_of("services"),
        conductor_protocol::subject::inspect(cell),
    ];
    Rights {
        publish,
        publish_not,
        subscribe,
        ..Rights::default()
    }
}

/// The rights of whoever provisions: everything within the cell's account.
pub fn administrator() -> Rights {
    Rights::default()
}

/// What reading the log and what stands beside it takes: an account has the streams of one cell
/// alone, and a server takes no more than 4 KiB of whoever introduces himself.
fn reading(cell: &CellId) -> Vec<String> {
    let mut all: Vec<String> = [
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.CONSUMER.CREATE.>",
        "$JS.API.CONSUMER.DELETE.>",
        "$JS.API.CONSUMER.INFO.>",
        "$JS.API.CONSUMER.MSG.NEXT.>",
        "$JS.ACK.>",
    ]
    .map(str::to_owned)
    .to_vec();
    all.push(conductor_protocol::subject::inspect(cell));
    all
}

/// The rights of an operator of this name: reads everything, commands, submits to any queue, and asks
/// the issuer for credentials.
pub fn operator(cell: &CellId, name: &str) -> Rights {
    let mut publish = reading(cell);
    publish.push(format!("conductor.{cell}.submit.>"));
    publish.push(format!("conductor.{cell}.control"));
    publish.push(format!("conductor.{cell}.issuer.>"));
    Rights {
        publish,
        subscribe: own_answers(cell, name),
        ..Rights::default()
    }
}

/// The rights of a client: submits to the queues named (`*` means any), and hears the answers: its own
/// ([`own_answers`]), or with others ([`shared_answers`]). It reads nothing. One with namespaces
/// submits in those alone: the subject then says whose a task is, and the server refuses any other,
/// and the one that leaves it to the submission.
pub fn client(
    cell: &CellId,
    answers: Vec<String>,
    queues: &[String],
    namespaces: &[Namespace],
) -> Rights {
    let submit = |queue: &String| {
        let plain = format!("conductor.{cell}.submit.{queue}");
        if namespaces.is_empty() {
            return vec![format!("{plain}.*"), plain];
        }
        let own = namespaces.iter().map(|n| format!("{plain}.{n}"));
        own.collect()
    };
    Rights {
        publish: queues.iter().flat_map(submit).collect(),
        subscribe: answers,
        ..Rights::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_reaches_subjects_of_its_own_alone() {
        let (cell, a1) = (CellId::default(), AgentId::from_log("a1"));
        let rights = agent(&cell, &a1);
        for subject in &rights.publish {
            assert!(
                subject.split('.').any(|t| t == "a1" || t == "agent-a1"),
                "{subject}"
            );
        }
        assert!(!rights.publish.iter().any(|s| s.contains("STREAM")));
        for service in services(&cell, &a1) {
            let (any, own) = (service.exported.split('.'), service.imported.split('.'));
            assert_eq!(any.clone().count(), own.clone().count());
            assert!(any.zip(own).all(|(any, own)| any == own || any == "*"));
        }
    }

    #[test]
    fn services_change_no_stream_of_record_and_speak_for_no_agent() {
        let rights = service(&CellId::default());
        let administers = |s: &&String| {
            let verbs = ["CREATE", "UPDATE", "DELETE", "PURGE", "RESTORE", "SNAPSHOT"];
            s.contains("STREAM.MSG.DELETE")
                || verbs.iter().any(|v| s.contains(&format!("STREAM.{v}.")))
        };
        let administered: Vec<_> = rights.publish.iter().filter(administers).collect();
        assert_eq!(
            administered,
            [
                "$JS.API.STREAM.CREATE.PRESENCE_local",
                "$JS.API.STREAM.PURGE.OBJ_SNAPSHOTS_local"
            ]
        );
        assert!(
            rights
                .publish_not
                .contains(&"conductor.local.agent.*".to_owned())
        );
    }

    #[test]
    fn a_client_reads_nothing() {
        let cell = CellId::default();
        let rights = client(&cell, shared_answers(&cell), &["builds".to_owned()], &[]);
        assert_eq!(
            rights.publish,
            [
                "conductor.local.submit.builds.*",
                "conductor.local.submit.builds"
            ]
        );
    }

    #[test]
    fn a_client_of_a_namespace_submits_there_alone() {
        let team = [Namespace::from_log("team"), Namespace::from_log("ops")];
        let cell = CellId::default();
        let rights = client(&cell, own_answers(&cell, "ci"), &["*".to_owned()], &team);
        assert_eq!(
            rights.subscribe,
            ["_INBOX_OF.ci.>", "conductor.local.reply.ci.>"]
        );
        for (subject, may) in [
            ("conductor.local.submit.builds.team", true),
            ("conductor.local.submit.default.ops", true),
            ("conductor.local.submit.builds.other", false),
            ("conductor.local.submit.builds", false),
            ("conductor.local.submit.team", false),
            ("conductor.local.submit.builds.team.x", false),
            ("conductor.other.submit.builds.team", false),
            ("conductor.local.control", false),
        ] {
            assert_eq!(rights.may_publish(subject), may, "{subject}");
        }
    }

    /// In the account of the cell only those who share credentials share inboxes, and services answer
    /// in all of them.
    #[test]
    fn nobody_hears_what_another_is_answered() {
        let cell = CellId::default();
        let heard = [
            service(&cell),
            issuer(&cell),
            operator(&cell, "operator"),
            operator(&cell, "ada"),
            client(&cell, own_answers(&cell, "ci"), &[], &[]),
            client(&cell, shared_answers(&cell), &[], &[]),
        ]
        .map(|rights| rights.subscribe);
        for (i, of_one) in heard.iter().enumerate() {
            for of_other in heard.iter().skip(i + 1).flatten() {
                let first = of_other.replace('>', "1");
                let is_shared = of_one.iter().any(|pattern| covers(pattern, &first));
                assert!(!is_shared, "{of_other}");
            }
            for inbox in of_one.iter().filter(|s| s.starts_with("_INBOX")) {
                let answered = inbox.replace('>', "1");
                assert!(service(&cell).may_publish(&answered), "{answered}");
                assert!(issuer(&cell).may_publish(&answered), "{answered}");
            }
        }
    }

    #[test]
    fn rights_are_read_as_servers_read_them() {
        let rights = service(&CellId::default());
        assert!(rights.may_publish("conductor.local.orchestrator"));
        assert!(!rights.may_publish("conductor.local.agent.a1"));
        assert!(!rights.may_publish("conductor.local"));
        assert!(administrator().may_publish("anything"));
        assert!(operator(&CellId::default(), "ada").may_publish("conductor.local.submit.q.team"));
    }
}
