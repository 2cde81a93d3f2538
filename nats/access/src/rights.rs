//! The subjects that each kind of user may use: the topology, as the servers enforce it.

use conductor_protocol::ids::{AgentId, CellId, Namespace};
use conductor_protocol::subject::{
    answer, artifact, credential, log_stream, output, presence, private_inbox, reply_roots,
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

/// A service of the cell's account that others' accounts import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// What the cell's account exports: any agent's.
    pub exported: String,
    /// What an account imports of it: an agent's its own.
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

/// Everything clients can reach: submissions.
pub fn client_services(cell: &CellId) -> Vec<Service> {
    let submit = |rest: &str| {
        let subject = format!("conductor.{cell}.submit.{rest}");
        Service {
            exported: subject.clone(),
            imported: subject,
            is_streaming: false,
        }
    };
    vec![submit("*"), submit("*.*")]
}

/// Words for clients: what the cell's account exports, and what each is in theirs.
pub fn answers(cell: &CellId) -> Vec<(String, String)> {
    let below = reply_roots(cell).map(|root| format!("{root}>"));
    below.map(|all| (answer(cell, &all), all)).to_vec()
}

/// The rights of an agent's user, within its account.
pub fn agent(cell: &CellId, agent: &AgentId) -> Rights {
    Rights {
        publish: services(cell, agent)
            .into_iter()
            .map(|s| s.imported)
            .collect(),
        subscribe: vec!["_INBOX.>".to_owned()],
        ..Rights::default()
    }
}

/// The rights of an agent that is not enrolled yet: to ask for credentials, and nothing else.
pub fn enrolment(cell: &CellId, agent: &AgentId) -> Rights {
    Rights {
        publish: vec![credential(cell, agent.as_str())],
        subscribe: vec!["_INBOX.>".to_owned()],
        ..Rights::default()
    }
}

/// The rights of whoever issues credentials to agents.
pub fn issuer(cell: &CellId) -> Rights {
    Rights {
        publish: vec!["_INBOX.>".to_owned(), "_R_.>".to_owned()],
        subscribe: vec![credential(cell, "*"), "_INBOX.>".to_owned()],
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
        "_INBOX.>".to_owned(),
        // Words for submitters are published where they asked for them, too: on a server without
        // accounts that is where they hear.
        "_INBOX_OF.>".to_owned(),
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
        "_INBOX.>".to_owned(),
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

/// The rights of an operator: reads everything, commands, submits to any queue.
///
/// Who reads may make consumers, and servers send what those find wherever they are told to: somebody
/// who means harm can have them write in another's name. Operators are trusted like services.
pub fn operator(cell: &CellId) -> Rights {
    let mut publish = reading(cell);
    publish.push(format!("conductor.{cell}.submit.>"));
    publish.push(format!("conductor.{cell}.control"));
    Rights {
        publish,
        subscribe: vec!["_INBOX.>".to_owned(), format!("conductor.{cell}.reply.>")],
        ..Rights::default()
    }
}

/// Where a client hears what it is answered, and no other does. Servers take a subscription to `a.>`
/// for one that `a.*` allows (2.15.1), so there is none of the kind.
pub fn own_answers(cell: &CellId, client: &str) -> Vec<String> {
    vec![
        format!("{}.>", private_inbox(client)),
        replies(cell, client),
    ]
}

fn replies(cell: &CellId, client: &str) -> String {
    format!("conductor.{cell}.reply.{client}.>")
}

/// Where answers are heard by everybody who has the credentials that stand beside the keys: any NATS
/// client asks there, unless told otherwise.
pub fn shared_answers(cell: &CellId) -> Vec<String> {
    vec!["_INBOX.>".to_owned(), replies(cell, "client")]
}

/// The rights of a client, within the clients' account: submits to the queues named (`*` means any),
/// and hears the answers, its own ([`own_answers`]) or with others ([`shared_answers`]). It reads
/// nothing. One with namespaces submits in those alone: the subject then says whose a task is, and the
/// server refuses any other, and the one that leaves it to the submission.
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

    #[test]
    fn no_client_hears_what_another_is_answered() {
        let cell = CellId::default();
        let heard = ["ci", "team"].map(|client| own_answers(&cell, client));
        let heard = [&heard[..], &[shared_answers(&cell)]].concat();
        let sample = |pattern: &String| pattern.replace('>', "x.y");
        for (i, of_one) in heard.iter().enumerate() {
            let others = heard.iter().enumerate().filter(|(n, _)| *n != i);
            for other in others.flat_map(|(_, of_other)| of_other) {
                let is_heard = of_one.iter().any(|own| covers(own, &sample(other)));
                assert!(!is_heard, "{of_one:?} covers {other}");
            }
            for own in of_one {
                // Both ways to be told: there, and from where the clients' account imports it.
                let word = sample(own);
                assert!(conductor_protocol::subject::is_allowed_reply(&cell, &word));
                assert!(service(&cell).may_publish(&word), "{word}");
                assert!(service(&cell).may_publish(&answer(&cell, &word)), "{word}");
                let crosses = |(from, to): &(String, String)| {
                    covers(from, &answer(&cell, &word)) && covers(to, &word)
                };
                assert!(answers(&cell).iter().any(crosses), "{word}");
            }
        }
        let submits = |service: &Service| service.imported.starts_with("conductor.local.submit.");
        assert!(client_services(&cell).iter().all(submits));
    }

    #[test]
    fn rights_are_read_as_servers_read_them() {
        let rights = service(&CellId::default());
        assert!(rights.may_publish("conductor.local.orchestrator"));
        assert!(!rights.may_publish("conductor.local.agent.a1"));
        assert!(!rights.may_publish("conductor.local"));
        assert!(administrator().may_publish("anything"));
        assert!(operator(&CellId::default()).may_publish("conductor.local.submit.q.team"));
    }
}
