//! What tests of the tools share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use conductor_protocol::RunSpec;
use conductor_protocol::event::{AttemptAssigned, Event, Word};
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::terms::{Answer, Terms};
use tokio::sync::mpsc;

use super::{Given, Tools};
use crate::people::People;
use crate::runtime::testing::assigned;
use crate::subtasks::Subtasks;
use crate::workspace::collect::ArtifactStore;
use crate::workspace::store::Keeper;

pub(crate) fn lease() -> Lease {
    Lease {
        task: "018bcfe5-6800-7000-8000-000000000000".parse().unwrap(),
        attempt: 1,
        assigned: Position::new(7, 0),
    }
}

/// What somebody answers.
pub(crate) fn allow(approval: u32, text: &str) -> Word {
    Word::Decision {
        approval,
        answer: Answer::Allow,
        text: Some(text.to_owned()),
    }
}

/// Tools, and what stands around them.
pub(crate) struct Opened {
    pub(crate) tools: Tools,
    pub(crate) people: People,
    pub(crate) told: mpsc::UnboundedReceiver<Event>,
    pub(crate) shelf: Arc<Shelf>,
}

/// The tools of an attempt at a task with this schema of its result.
pub(crate) fn opened(workspace: &Path, schema: Option<&str>) -> Opened {
    let shelf = Arc::new(Shelf::default());
    let store: Arc<dyn ArtifactStore> = Arc::<Shelf>::clone(&shelf);
    let keeper = Keeper::new(lease(), store);
    let (tools, people, told) = opened_with(workspace, schema, keeper);
    Opened {
        tools,
        people,
        told,
        shelf,
    }
}

/// The same with a keeper of one's own: the tools, whom they ask, and what they tell.
pub(crate) fn opened_with(
    workspace: &Path,
    schema: Option<&str>,
    keeper: Keeper,
) -> (Tools, People, mpsc::UnboundedReceiver<Event>) {
    let terms = Terms {
        result_schema: schema.map(str::to_owned),
        ..Terms::default()
    };
    let assigned = AttemptAssigned {
        terms: Some(Arc::new(terms)),
        ..assigned(RunSpec::Command(Box::default()))
    };
    let (facts, told) = mpsc::unbounded_channel();
    let people = People::new(lease(), None, facts.clone());
    let subtasks = Subtasks::new(lease(), &assigned, None, facts.clone());
    let tools = Tools::open(Given {
        lease: lease(),
        assigned: &assigned,
        workspace: workspace.to_owned(),
        seen_at: "/workspace".into(),
        keeper,
        people: people.clone(),
        facts,
        children: Arc::new(subtasks.line()),
    });
    (tools, people, told)
}

/// Keeps artifacts in memory, by their hash.
#[derive(Debug, Default)]
pub(crate) struct Shelf(pub(crate) Mutex<BTreeMap<String, Vec<u8>>>);

/// Takes whatever it is asked to keep, and never says that it has it.
#[derive(Debug, Default)]
pub(crate) struct Pit(pub(crate) tokio::sync::Notify);

#[async_trait]
impl ArtifactStore for Pit {
    async fn store(&self, _: &str, _: u64, _: File) -> Result<(), String> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl ArtifactStore for Shelf {
    async fn store(&self, sha256: &str, _: u64, mut file: File) -> Result<(), String> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        self.0.lock().unwrap().insert(sha256.to_owned(), bytes);
        Ok(())
    }
}
