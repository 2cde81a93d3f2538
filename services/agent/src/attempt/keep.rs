//! What an attempt leaves: its result, what it changed, its artifacts, its commits.

use std::fs::File;

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::AttemptChanged;
use conductor_protocol::limits::RESULT_BYTES_MAX;

use super::Course;
use super::end::End;
use super::program::stopped;
use crate::files::{self, cut_beginning, cut_end};
use crate::schema;
use crate::tools::{Completed, Tools};
use crate::workspace::collect::{self, Hashed, PATCH, RESULT};
use crate::workspace::store::hashed;
use crate::workspace::{Changed, Workspace};

impl Course {
    /// Keeps what the attempt leaves; of one that was stopped only its commits.
    pub(super) async fn keep(&mut self, workspace: &Workspace, end: &mut End) -> Option<Changed> {
        if end.is_stopped() {
            workspace.rescue().await;
            return None;
        }
        self.tell_started();
        self.hear_tools();
        let (progress, bad) = self.progress.finish(&self.dirs.workspace);
        if let Some(progress) = progress {
            self.tell_progress(progress);
        }
        if bad > 0 {
            self.note(&format!("[{bad} lines of its progress could not be read]"));
        }
        self.take_result(end);
        let mut stop = self.of.stop.clone();
        tokio::select! {
            changed = self.keep_all(workspace, end) => return changed,
            reason = stopped(&mut stop) => end.stop(reason),
        }
        workspace.rescue().await;
        None
    }

    /// Pushes what an attempt that succeeded made, and says what it changed.
    pub(super) async fn hand_over(
        &mut self,
        workspace: &Workspace,
        changed: Option<Changed>,
        end: &mut End,
    ) {
        let Some(mut changed) = changed.filter(|_| !end.is_stopped()) else {
            return;
        };
        let mut pushed = None;
        if end.is_success() {
            let mut stop = self.of.stop.clone();
            tokio::select! {
                done = workspace.push(&mut changed) => match done {
                    Ok(branch) => pushed = branch,
                    Err(problem) => end.fail(OutcomeClass::Failed, problem),
                },
                reason = stopped(&mut stop) => {
                    end.stop(reason);
                    return;
                }
            }
        }
        let mut stop = self.of.stop.clone();
        let unpushed = tokio::select! {
            unpushed = workspace.unpushed() => unpushed,
            reason = stopped(&mut stop) => {
                end.stop(reason);
                return;
            }
        };
        let difference = changed.difference;
        self.of.tell(AttemptChanged {
            lease: self.of.lease,
            files: difference.files,
            insertions: difference.insertions,
            deletions: difference.deletions,
            patch: difference.patch.map(|_| PATCH.to_owned()),
            base: changed.base,
            head: changed.head,
            pushed,
            unpushed,
        });
    }

    /// Takes in what its tools say of how far it is.
    pub(super) fn hear_tools(&mut self) {
        let tools = self.reach.tools.as_ref();
        if let Some(progress) = tools.and_then(Tools::progress) {
            self.progress.say(progress);
        }
    }

    /// Takes the result that the program gave, and checks it: by its tools, where it was told that it
    /// is taken; else as a file; else what it wrote.
    fn take_result(&self, end: &mut End) {
        let completed = self.reach.tools.as_ref().and_then(Tools::completed);
        if let Some(Completed { result, summary }) = completed {
            if let Some(summary) = summary {
                self.note(&format!("[result: {summary}]"));
            }
            end.result = Some(result);
        } else {
            match files::result(&self.dirs.workspace) {
                Ok(Some(result)) => end.result = Some(result),
                Ok(None) => {}
                Err(problem) => end.fail(OutcomeClass::BadOutput, problem),
            }
        }
        let terms = self.of.assigned.terms.as_deref();
        let schema = terms.and_then(|t| t.result_schema.as_deref());
        if let Some(schema) = schema.filter(|_| end.is_success()) {
            let result = end.result.as_deref().unwrap_or_default();
            if let Err(problem) = schema::check(schema, result) {
                let message = format!("its result does not fit result_schema: {problem}");
                end.fail(OutcomeClass::BadOutput, message);
            }
        }
    }

    async fn keep_all(&self, workspace: &Workspace, end: &mut End) -> Option<Changed> {
        self.keep_long_result(end).await;
        let mut changed = match workspace.changes().await {
            Ok(changed) => changed,
            Err(problem) => {
                self.note(&format!("[what it changed is not known: {problem}]"));
                None
            }
        };
        if let Some(changed) = &mut changed {
            if let Some(problem) = &changed.problem {
                self.note(&format!("[its commits are not kept: {problem}]"));
            }
            let patch = changed.difference.patch.take();
            changed.difference.patch = self.keep_text(PATCH, patch).await;
        }
        self.keep_artifacts(end).await;
        changed
    }

    /// A result that is too long for an event is kept whole beside it.
    async fn keep_long_result(&self, end: &mut End) {
        let Some(result) = end.result.take_if(|result| result.len() > RESULT_BYTES_MAX) else {
            return;
        };
        let is_json = result.starts_with(['{', '[', '"']);
        // Of what was printed the end says most, of a document its beginning.
        let cut = if is_json {
            cut_end(result.clone(), RESULT_BYTES_MAX)
        } else {
            cut_beginning(&result, RESULT_BYTES_MAX)
        };
        end.result = Some(cut);
        self.keep_text(RESULT, Some(result.into_bytes())).await;
    }

    /// Keeps bytes of our own making; gives them back where they are kept.
    async fn keep_text(&self, name: &str, bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let bytes = bytes?;
        let path = self.dirs.root.join(name);
        let written = std::fs::write(&path, &bytes).and_then(|()| File::open(&path));
        let kept = match written.map_err(|e| e.to_string()).and_then(collect::hash) {
            Ok(hashed) => self.keep_file(name, hashed).await,
            Err(problem) => Err(problem),
        };
        match kept {
            Ok(()) => Some(bytes),
            Err(problem) => {
                self.note(&format!("[{name} is not kept: {problem}]"));
                None
            }
        }
    }

    /// Keeps the files that the task declared. Of an attempt that failed anyway, those there are.
    async fn keep_artifacts(&self, end: &mut End) {
        let terms = self.of.assigned.terms.as_deref();
        let Some(declared) = terms.map(|t| t.artifacts.clone()).filter(|a| !a.is_empty()) else {
            return;
        };
        let workspace = self.dirs.workspace.clone();
        let (paths, problems) = collect::find(&workspace, &declared);
        for problem in problems {
            self.is_missed(end, &problem);
        }
        for path in paths {
            let kept = match hashed(&workspace, &path).await {
                Ok(hashed) => {
                    let room = match self.keeper.admit(hashed.size) {
                        Ok(room) => room,
                        Err(most) => {
                            let most = format!("{most}; {path:?} and what follows are not kept");
                            return self.is_missed(end, &most);
                        }
                    };
                    let kept = self.keep_file(&path, hashed).await;
                    kept.map(|()| room.stays())
                        .map_err(|e| (OutcomeClass::Failed, format!("{path:?} is not kept: {e}")))
                }
                Err(problem) => Err((OutcomeClass::BadOutput, problem)),
            };
            if let Err((class, problem)) = kept {
                self.note(&format!("[{problem}]"));
                end.fail(class, problem);
            }
        }
    }

    fn is_missed(&self, end: &mut End, problem: &str) {
        self.note(&format!("[{problem}]"));
        end.fail(OutcomeClass::BadOutput, problem);
    }

    /// Stores a file, then says so.
    async fn keep_file(&self, name: &str, hashed: Hashed) -> Result<(), String> {
        let kept = self.keeper.keep(name, hashed).await?;
        self.of.tell(kept);
        Ok(())
    }
}
