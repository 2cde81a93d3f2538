//! What an agent offers to box attempts in by, and which of it an attempt gets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use conductor_protocol::terms::{
    Guarantee, Network, Reach, SandboxKind, SandboxOffer, SandboxSpec, Terms,
};
use tokio::sync::OnceCell;

use super::cgroup::Cgroups;
use super::limits::Limits;
use super::{Bind, Boxing, Sandbox, probe};

/// What an agent was told of its sandboxes.
#[derive(Clone, Debug, Default)]
pub struct BoxOptions {
    /// The sandbox of tasks that name none; `None` for bubblewrap where that works.
    pub kind: Option<SandboxKind>,
    /// How far the network of a task may go at most; `None` for whatever the agent reaches.
    pub network_max: Option<Reach>,
    /// What else of the machine can be read inside.
    pub read_only: Vec<PathBuf>,
    /// Image of containers for tasks that name none.
    pub image: Option<String>,
    /// Programs that must be there inside.
    pub tools: Vec<PathBuf>,
    /// Where programs are looked up.
    pub path: String,
    /// The program that has the reaper's steps.
    pub reaper: PathBuf,
    /// Below here attempts have their directories: tells this agent from others on the machine.
    pub data: PathBuf,
}

/// What was found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What works, and what it promises here.
    pub sandboxes: BTreeMap<SandboxKind, (Sandbox, SandboxOffer)>,
    /// Why the others do not.
    pub missing: BTreeMap<SandboxKind, String>,
    /// The sandbox of tasks that name none.
    pub default: SandboxKind,
    /// How far the network of a task may go at most.
    pub network_max: Reach,
    /// Where control groups are made for attempts.
    pub cgroups: Option<Cgroups>,
    /// What tools need of the machine.
    pub tools: Vec<Bind>,
}

/// The sandboxes of an agent: looked for once, when it joins first.
#[derive(Clone, Debug)]
pub struct Boxes {
    options: BoxOptions,
    found: Arc<OnceCell<Found>>,
}

impl Boxes {
    /// Those that `options` describe.
    pub fn new(options: BoxOptions) -> Self {
        Self {
            options,
            found: Arc::default(),
        }
    }

    /// None at all, and no look at the machine.
    pub fn none(reaper: PathBuf) -> Self {
        let options = BoxOptions {
            kind: Some(SandboxKind::None),
            reaper,
            ..BoxOptions::default()
        };
        let found = OnceCell::new_with(Some(Found::nothing()));
        Self {
            options,
            found: Arc::new(found),
        }
    }

    /// What works here; the sandbox that was asked for by name must.
    pub async fn found(&self) -> Result<&Found, String> {
        self.found
            .get_or_try_init(|| probe::machine(&self.options))
            .await
    }

    /// How an attempt under `terms` is boxed in.
    pub async fn choose(&self, terms: Option<&Terms>, lease: String) -> Result<Boxing, String> {
        self.found().await?.choose(&self.options, terms, lease)
    }
}

impl Found {
    /// A machine on which nothing was looked for.
    fn nothing() -> Self {
        let none = (Sandbox::None, SandboxOffer::default());
        Self {
            sandboxes: [(SandboxKind::None, none)].into(),
            missing: BTreeMap::new(),
            default: SandboxKind::None,
            network_max: Reach::Full,
            cgroups: None,
            tools: Vec::new(),
        }
    }

    /// What is said of it when the agent joins. What is weaker than the default is not offered: who
    /// submits a task shall not choose less than who runs the agent. Neither is what leaves the network
    /// open, where that may not be.
    pub fn offers(&self) -> BTreeMap<SandboxKind, SandboxOffer> {
        let offered = self.offered();
        offered
            .map(|(kind, (_, offer))| (*kind, offer.clone()))
            .collect()
    }

    /// Why tasks that ask for nothing are not boxed in, where they are not.
    pub fn why_not_boxed(&self) -> Option<&str> {
        let why = self.missing.get(&SandboxKind::Bubblewrap)?;
        (self.default == SandboxKind::None).then_some(why)
    }

    fn offered(&self) -> impl Iterator<Item = (&SandboxKind, &(Sandbox, SandboxOffer))> {
        let stronger = self.sandboxes.range(self.default..);
        stronger.filter(|(_, (_, offer))| self.keeps_closed(offer))
    }

    /// Whether it keeps the network as closed as the agent has to.
    fn keeps_closed(&self, offer: &SandboxOffer) -> bool {
        let is_kept = offer.guarantees.contains(&Guarantee::NetworkClosed);
        is_kept || self.network_max == Reach::Full
    }

    /// Refuses to go on where tasks that ask for nothing would reach more than they may.
    pub(super) fn check(self) -> Result<Self, String> {
        let (kind, max) = (self.default, self.network_max);
        let default = self.sandboxes.get(&kind);
        if default.is_some_and(|(_, offer)| self.keeps_closed(offer)) {
            return Ok(self);
        }
        let why = self.why_not_boxed().map(|why| format!(" ({why})"));
        Err(format!(
            "--network-max {max} needs a sandbox that promises {}, which {kind} does not{}",
            Guarantee::NetworkClosed,
            why.unwrap_or_default()
        ))
    }

    /// How an attempt under `terms` is boxed in; an error says what it asks for in vain.
    fn choose(
        &self,
        options: &BoxOptions,
        terms: Option<&Terms>,
        lease: String,
    ) -> Result<Boxing, String> {
        let asked = terms.and_then(|t| t.sandbox.as_ref());
        let (sandbox, offer) = self.pick(asked)?;
        let kind = sandbox.kind();
        let network = asked.map_or_else(Network::default, |s| s.network.clone());
        if network.reach() > self.network_max {
            return Err(format!(
                "it asks for the network {}, and this agent keeps {}: its tasks reach {} at most",
                network.reach(),
                Guarantee::NetworkClosed,
                self.network_max
            ));
        }
        let limits = Limits::of(asked, kind);
        let read_only = options.read_only.iter().map(Bind::read_only);
        // An image brings its own tools.
        let tools = self
            .tools
            .iter()
            .filter(|_| kind <= SandboxKind::Bubblewrap);
        Ok(Boxing {
            guarantees: promised(&offer.guarantees, &network),
            cgroups: self.cgroups_for(kind, &limits),
            sandbox: sandbox.clone(),
            limits,
            network,
            ports: Vec::new(),
            image: asked
                .and_then(|s| s.image.clone())
                .or_else(|| options.image.clone()),
            binds: read_only.chain(tools.cloned()).collect(),
            reaper: options.reaper.clone(),
            lease,
        })
    }

    /// Engines make their own; without a sandbox there is one only for limits that are asked for.
    fn cgroups_for(&self, kind: SandboxKind, limits: &Limits) -> Option<Cgroups> {
        let is_wanted = match kind {
            SandboxKind::None => *limits != Limits::default(),
            SandboxKind::Landlock | SandboxKind::Bubblewrap => true,
            SandboxKind::Podman | SandboxKind::Docker | SandboxKind::Kubernetes => false,
        };
        self.cgroups.clone().filter(|_| is_wanted)
    }

    fn pick(&self, asked: Option<&SandboxSpec>) -> Result<&(Sandbox, SandboxOffer), String> {
        let level = asked.and_then(|s| s.level);
        let fits = |offer: &SandboxOffer| level.is_none_or(|level| offer.gives(level));
        let wanted = asked.and_then(|s| s.kind);
        let first = wanted.unwrap_or(self.default);
        let Some(named) = self.offered().find(|(kind, _)| **kind == first) else {
            return Err(self.why_not(first));
        };
        if fits(&named.1.1) {
            return Ok(named.1);
        }
        let others = self.offered().filter(|_| wanted.is_none());
        if let Some((_, other)) = others.into_iter().find(|(_, (_, offer))| fits(offer)) {
            return Ok(other);
        }
        let lacks = named
            .1
            .1
            .lacks(level.unwrap_or(conductor_protocol::terms::Level::Minimal));
        let lacks: Vec<_> = lacks.map(Guarantee::as_str).collect();
        Err(format!(
            "no sandbox of this agent is {}: its {first} does not promise {}",
            level.map_or("enough", |l| l.as_str()),
            lacks.join(", ")
        ))
    }

    fn why_not(&self, kind: SandboxKind) -> String {
        match self.missing.get(&kind) {
            Some(why) => format!("this agent has no sandbox {kind}: {why}"),
            None if kind >= self.default && self.sandboxes.contains_key(&kind) => format!(
                "this agent runs nothing in sandbox {kind}, which does not promise {}: its tasks \
                 reach {} at most",
                Guarantee::NetworkClosed,
                self.network_max
            ),
            None if self.sandboxes.contains_key(&kind) => format!(
                "this agent runs nothing in sandbox {kind}, which is weaker than its default, {}",
                self.default
            ),
            None => format!("this agent has no sandbox {kind}"),
        }
    }
}

/// What is promised of an attempt that may reach the network.
fn promised(guarantees: &[Guarantee], network: &Network) -> Vec<Guarantee> {
    let is_kept = |g: &Guarantee| *g != Guarantee::NetworkClosed || *network != Network::Full;
    guarantees.iter().copied().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::terms::Level;

    fn offer(guarantees: &[Guarantee]) -> SandboxOffer {
        SandboxOffer {
            version: "1".to_owned(),
            guarantees: guarantees.to_vec(),
        }
    }

    fn found(default: SandboxKind) -> Found {
        let minimal = offer(Level::Minimal.guarantees());
        let landlock = (Sandbox::Landlock, minimal);
        Found {
            sandboxes: [
                (SandboxKind::None, (Sandbox::None, SandboxOffer::default())),
                (SandboxKind::Landlock, landlock),
            ]
            .into(),
            missing: [(SandboxKind::Bubblewrap, "it is not installed".to_owned())].into(),
            default,
            network_max: Reach::Full,
            cgroups: None,
            tools: vec![Bind::read_only("/tools")],
        }
    }

    fn chosen(default: SandboxKind, asked: &str) -> Result<Boxing, String> {
        let terms: Terms = serde_json::from_str(&format!(r#"{{"sandbox":{asked}}}"#)).unwrap();
        let lease = "t/1/5".to_owned();
        found(default).choose(&BoxOptions::default(), Some(&terms), lease)
    }

    #[test]
    fn the_default_is_taken_unless_another_is_asked_for() {
        let kind = |default, asked| chosen(default, asked).unwrap().sandbox.kind();
        assert_eq!(kind(SandboxKind::None, "{}"), SandboxKind::None);
        assert_eq!(
            kind(SandboxKind::None, r#""landlock""#),
            SandboxKind::Landlock
        );
        assert_eq!(
            kind(SandboxKind::None, r#""minimal""#),
            SandboxKind::Landlock
        );
        assert_eq!(
            kind(SandboxKind::Landlock, r#""minimal""#),
            SandboxKind::Landlock
        );
    }

    #[test]
    fn what_cannot_be_given_is_refused_by_name() {
        let refused = |default, asked| chosen(default, asked).unwrap_err();
        expect_test::expect![
            "no sandbox of this agent is moderate: its landlock does not promise files_hidden, environment_hidden, processes_hidden, network_closed"
        ]
        .assert_eq(&refused(SandboxKind::Landlock, r#""moderate""#));
        expect_test::expect!["this agent has no sandbox bubblewrap: it is not installed"]
            .assert_eq(&refused(SandboxKind::None, r#""bubblewrap""#));
        expect_test::expect![
            "this agent runs nothing in sandbox none, which is weaker than its default, landlock"
        ]
        .assert_eq(&refused(SandboxKind::Landlock, r#""none""#));
        assert_eq!(found(SandboxKind::Landlock).offers().len(), 1);
    }

    /// A machine with bubblewrap, whose tasks reach `max` at most.
    fn closed(max: Reach) -> Found {
        let mut found = found(SandboxKind::Landlock);
        let bubblewrap = (Sandbox::Landlock, offer(Level::Moderate.guarantees()));
        found.sandboxes.insert(SandboxKind::Bubblewrap, bubblewrap);
        found.missing.clear();
        found.default = SandboxKind::Bubblewrap;
        found.network_max = max;
        found
    }

    #[test]
    fn no_task_reaches_more_than_the_operator_allows() {
        let all = ["\"none\"", r#"{"hosts":["example.org"]}"#, "\"full\""];
        for (max, allowed) in [(Reach::None, 1), (Reach::Hosts, 2), (Reach::Full, 3)] {
            let found = closed(max);
            let asking = |network: &&str| {
                let terms = format!(r#"{{"sandbox":{{"network":{network}}}}}"#);
                let terms: Terms = serde_json::from_str(&terms).unwrap();
                let lease = "t/1/5".to_owned();
                found.choose(&BoxOptions::default(), Some(&terms), lease)
            };
            let given: Vec<bool> = all.iter().map(|n| asking(n).is_ok()).collect();
            let expected: Vec<bool> = (0..3).map(|n| n < allowed).collect();
            assert_eq!(given, expected, "{max}");
        }
        let terms: Terms = serde_json::from_str(r#"{"sandbox":{"network":"full"}}"#).unwrap();
        let asked = closed(Reach::Hosts).choose(&BoxOptions::default(), Some(&terms), "t".into());
        expect_test::expect![
            "it asks for the network full, and this agent keeps network_closed: its tasks reach hosts at most"
        ]
        .assert_eq(&asked.unwrap_err());
    }

    #[test]
    fn what_leaves_the_network_open_is_not_offered_where_it_has_to_be_closed() {
        let mut found = closed(Reach::None);
        assert!(found.clone().check().is_ok());
        found.default = SandboxKind::Landlock;
        let offered: Vec<SandboxKind> = found.offers().into_keys().collect();
        assert_eq!(offered, [SandboxKind::Bubblewrap]);
        let terms: Terms = serde_json::from_str(r#"{"sandbox":"landlock"}"#).unwrap();
        let asked = found.choose(&BoxOptions::default(), Some(&terms), "t".into());
        expect_test::expect![
            "this agent runs nothing in sandbox landlock, which does not promise network_closed: its tasks reach none at most"
        ]
        .assert_eq(&asked.unwrap_err());
        expect_test::expect![
            "--network-max none needs a sandbox that promises network_closed, which landlock does not"
        ]
        .assert_eq(&found.check().unwrap_err());
        let mut unboxed = super::tests::found(SandboxKind::None);
        unboxed.network_max = Reach::Hosts;
        expect_test::expect![
            "--network-max hosts needs a sandbox that promises network_closed, which none does not (it is not installed)"
        ]
        .assert_eq(&unboxed.check().unwrap_err());
    }

    #[test]
    fn an_open_network_is_no_closed_one() {
        let all = [Guarantee::NothingLeft, Guarantee::NetworkClosed];
        assert_eq!(promised(&all, &Network::None), all);
        assert_eq!(promised(&all, &Network::Hosts(vec!["h".into()])), all);
        assert_eq!(promised(&all, &Network::Full), [Guarantee::NothingLeft]);
    }
}
