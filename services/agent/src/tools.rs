//! What an attempt's program can ask of its agent while it runs, by the tools of a server of its own:
//! carried out here, spoken by `conductor-toolserver`.
//!
//! What tools do is what programs can do otherwise: progress and results as by files, artifacts as the
//! task declares them, questions as a runtime asks them. All of it ends with the program: after
//! [`Tools::close`] no tool says anything more.

mod questions;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use conductor_modelproxy::{Account, Beside};
use conductor_protocol::event::{AttemptAssigned, Event, FieldError};
use conductor_protocol::human::format_time;
use conductor_protocol::ids::Lease;
use conductor_toolserver::input::{AttachArtifact, Complete, ReportProgress};
use conductor_toolserver::{Attached, Attempt, Reply, ToolServer, server};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use conductor_toolserver::{ChildState, Children, Created};

use crate::files::Progress;
use crate::people::People;
use crate::schema;
use crate::workspace::collect::{PATCH, RESULT};
use crate::workspace::inputs;
use crate::workspace::store::Keeper;
use questions::{Questions, field};

/// Where a program finds its server, and what it says there to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its URL.
    pub url: String,
    /// Its bearer token.
    pub token: String,
}

/// The variable of the URL.
pub const URL_VARIABLE: &str = "CONDUCTOR_MCP_URL";
/// The variable of the token.
pub const TOKEN_VARIABLE: &str = "CONDUCTOR_MCP_TOKEN";
/// What the server is called in the settings of clients.
pub const NAME: &str = server::NAME;
/// How long clients are told to wait for an answer: people may take days. Longer than this some hold
/// for no time at all.
pub const PATIENCE: Duration = Duration::from_secs(14 * 24 * 3600);

impl Endpoint {
    /// The server behind a port of loopback.
    pub(crate) fn at(port: u16, token: &str) -> Self {
        Self {
            url: format!("http://127.0.0.1:{port}{}", server::PATH),
            token: token.to_owned(),
        }
    }
}

/// What the tools of an attempt work with.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) lease: Lease,
    pub(crate) assigned: &'a AttemptAssigned,
    /// Its workspace.
    pub(crate) workspace: PathBuf,
    /// Where its program sees that.
    pub(crate) seen_at: PathBuf,
    pub(crate) keeper: Keeper,
    pub(crate) people: People,
    pub(crate) facts: mpsc::UnboundedSender<Event>,
    pub(crate) children: Arc<dyn Children>,
}

/// The tools of an attempt. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Tools(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The task, as its program may know it.
    task: Value,
    schema: Option<String>,
    workspace: PathBuf,
    seen_at: PathBuf,
    keeper: Keeper,
    questions: Questions,
    children: Arc<dyn Children>,
    account: OnceLock<Account>,
    desk: Mutex<Desk>,
    is_over: watch::Sender<bool>,
}

#[derive(Debug)]
struct Desk {
    /// Whom it speaks to, while its program runs.
    line: Option<(People, mpsc::UnboundedSender<Event>)>,
    /// What is to be said of how far it is.
    progress: Option<Progress>,
    completed: Option<Completed>,
    /// Until when its programs may run.
    deadline: Option<Instant>,
}

/// A result that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    /// The result.
    pub(crate) result: String,
    /// What was said with it, where it is another.
    pub(crate) summary: Option<String>,
}

impl Tools {
    /// Opens them.
    pub(crate) fn open(given: Given<'_>) -> Self {
        let terms = given.assigned.terms.as_deref();
        Self(Arc::new(Shared {
            task: inputs::describe(&given.lease, given.assigned),
            schema: terms.and_then(|t| t.result_schema.clone()),
            workspace: given.workspace,
            seen_at: given.seen_at,
            keeper: given.keeper,
            questions: Questions::default(),
            children: given.children,
            account: OnceLock::new(),
            desk: Mutex::new(Desk {
                line: Some((given.people, given.facts)),
                progress: None,
                completed: None,
                deadline: None,
            }),
            is_over: watch::Sender::new(false),
        }))
    }

    /// The server, for the proxy that it is reached by.
    pub(crate) fn door(&self) -> Arc<dyn Beside> {
        let attempt: Arc<dyn Attempt> = Arc::<Shared>::clone(&self.0);
        Arc::new(Door(ToolServer::new(attempt)))
    }

    /// From now on it is known what is left of the budget.
    pub(crate) fn know_budget(&self, account: Account) {
        // Whoever was first stays: there is one proxy.
        let _ = self.0.account.set(account);
    }

    /// Until when its programs may run.
    pub(crate) fn know_deadline(&self, deadline: Option<Instant>) {
        self.0.desk().deadline = deadline;
    }

    /// What was last said of how far it is, once.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.0.desk().progress.take()
    }

    /// The last result that was taken.
    pub(crate) fn completed(&self) -> Option<Completed> {
        self.0.desk().completed.clone()
    }

    /// Its program is gone: nothing that is under way has any effect from now on.
    pub(crate) fn close(&self) {
        self.0.desk().line = None;
        self.0.is_over.send_replace(true);
    }
}

/// The server beside an attempt's models.
#[derive(Debug)]
struct Door(ToolServer);

#[async_trait]
impl Beside for Door {
    fn path(&self) -> &str {
        server::PATH
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Response<BoxBody<Bytes, std::convert::Infallible>> {
        self.0.answer(request).await
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn is_over(&self) {
        let mut is_over = self.is_over.subscribe();
        // Its sender lives as long as this.
        let _ = is_over.wait_for(|is_over| *is_over).await;
    }

    async fn keep(&self, path: String, name: String) -> Result<Attached, FieldError> {
        let wrong = |problem: String| {
            let expected = "a file of the workspace that is there, and not too large";
            FieldError::new("path", problem, expected)
        };
        let taken_in = self.keeper.take_in(&self.workspace, &path).await;
        // A call that is dropped from here on gives the room back.
        let (hashed, room) = taken_in.map_err(wrong)?;
        let size = hashed.size;
        let kept = self.keeper.keep(&name, hashed).await.and_then(|artifact| {
            let desk = self.desk();
            let (_, facts) = desk.line.as_ref().ok_or("the attempt is over")?;
            let sha256 = artifact.sha256.clone();
            // The service lives longer than its attempts; when it is killed nobody reports.
            let _ = facts.send(artifact.into());
            room.stays();
            Ok(Attached { name, size, sha256 })
        });
        kept.map_err(|problem| wrong(format!("is not kept: {problem}")))
    }

    /// A path of the program's, relative to its workspace.
    fn relative(&self, path: &str) -> Result<String, FieldError> {
        let path = Path::new(path);
        let plain = plain(path.strip_prefix(&self.seen_at).unwrap_or(path));
        plain.ok_or_else(|| {
            FieldError::new(
                "path",
                format!("{} leads out of the workspace", path.display()),
                format!("a path below {}, without ..", self.seen_at.display()),
            )
        })
    }
}

/// A path of names alone, as it is usually written.
fn plain(path: &Path) -> Option<String> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    let has_control = names.iter().any(|name| name.contains(char::is_control));
    (!names.is_empty() && !has_control).then(|| names.join("/"))
}

/// What an artifact may be called.
fn artifact_name(name: &str) -> Result<String, FieldError> {
    let plain = plain(Path::new(name)).filter(|name| ![PATCH, RESULT].contains(&name.as_str()));
    plain.ok_or_else(|| {
        let problem = format!("{name:?} is no name for an artifact");
        let expected = format!("names with / between, but .. and {PATCH} and {RESULT}");
        FieldError::new("name", problem, expected)
    })
}

fn over(field: &str) -> FieldError {
    FieldError::new(field, "comes too late: the attempt is over", "nothing more")
}

#[async_trait]
impl Attempt for Shared {
    fn report(&self, progress: ReportProgress) -> Result<(), FieldError> {
        let ReportProgress { percent, message } = progress;
        let mut desk = self.desk();
        if desk.line.is_none() {
            return Err(over("message"));
        }
        desk.progress = Progress::new(percent, Some(message));
        Ok(())
    }

    async fn attach(&self, file: AttachArtifact) -> Result<Attached, FieldError> {
        let path = self.relative(&file.path)?;
        let name = artifact_name(file.name.as_deref().unwrap_or(&path))?;
        tokio::select! {
            kept = self.keep(path, name) => kept,
            () = self.is_over() => Err(over("path")),
        }
    }

    async fn ask(&self, text: String, is_open: bool) -> Result<Reply, FieldError> {
        let field = field(is_open);
        let asked = {
            let desk = self.desk();
            let (people, _) = desk.line.as_ref().ok_or_else(|| over(field))?;
            self.questions.ask(people, text, is_open)?
        };
        let reply = tokio::select! {
            reply = self.questions.answer(asked) => reply,
            () = self.is_over() => None,
        };
        let reply = reply.ok_or_else(|| over(field))?;
        Ok(Reply {
            answer: reply.answer,
            text: reply.text,
        })
    }

    fn task(&self) -> Value {
        let mut task = self.task.clone();
        if let Some(fields) = task.as_object_mut() {
            let deadline = self.desk().deadline.map(wall_clock);
            fields.insert("deadline".to_owned(), json!(deadline));
            let left = self.account.get().map(Account::left);
            fields.insert("budget_left".to_owned(), json!(left));
        }
        task
    }

    fn complete(&self, result: Complete) -> Result<(), FieldError> {
        let completed = self.checked(result)?;
        let mut desk = self.desk();
        if desk.line.is_none() {
            return Err(over("summary"));
        }
        desk.completed = Some(completed);
        Ok(())
    }

    fn children(&self) -> &dyn Children {
        self.children.as_ref()
    }
}

impl Shared {
    /// A result that the task allows.
    fn checked(&self, result: Complete) -> Result<Completed, FieldError> {
        let Complete {
            summary,
            structured,
        } = result;
        let fits = "a result that fits result_schema, which get_task shows";
        let Some(structured) = structured else {
            if self.schema.is_some() {
                return Err(FieldError::new("structured", "is missing", fits));
            }
            return Ok(Completed {
                result: summary,
                summary: None,
            });
        };
        let text = structured.to_string();
        if let Some(schema) = &self.schema {
            schema::check(schema, &text).map_err(|problem| {
                let problem = format!("does not fit result_schema: {problem}");
                FieldError::new("structured", problem, fits)
            })?;
        }
        Ok(Completed {
            result: text,
            summary: Some(summary),
        })
    }
}

/// A moment to come, as clocks on the wall show it.
fn wall_clock(at: Instant) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = at.saturating_duration_since(Instant::now());
    let at = now.unwrap_or_default().saturating_add(left);
    format_time(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
}
