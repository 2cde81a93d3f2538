//! What is found in the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use conductor_protocol::CellId;
use conductor_protocol::ids::QueueName;

use super::claim::{self, Problem};
use super::disk::{self, Folder, Print};
use super::ledger::{Claim, Ledger};
use super::names;
use super::status::{self, Status};
use crate::cli::submit::Order;
use crate::cli::submit::file::{new_id, now_ms};
use crate::exit::{Failure, Outcome};

/// Most files that are taken at a time.
pub(super) const CLAIMS_MAX: usize = 100;
/// How long a file must stay as it is before it counts as finished, though it is no task.
const SETTLED: Duration = Duration::from_secs(2);
/// Largest status that is read, in bytes; ours are far smaller.
const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// What earlier processes wrote of the files that are there.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// By the name of the task.
    pub(super) statuses: BTreeMap<String, Status>,
    /// Tasks that have a status which cannot be read, and why.
    pub(super) unknown: BTreeMap<String, String>,
}

impl Before {
    /// Reads it. Without a list of what is there every file would count as new.
    pub(super) fn read(folder: &Folder) -> Outcome<Self> {
        let files = folder.names().map_err(|e| {
            let folder = folder.path().display();
            Failure::usage(format!("{folder}: cannot be listed: {e}"))
                .hint("let the user list it that `conductor watch-folder` runs as")
        })?;
        let mut before = Self::default();
        for file in files {
            let Some(name) = names::of_status(&file).map(str::to_owned) else {
                continue;
            };
            match status_of(folder, &file) {
                Ok(status) if status.file_removed && status.is_closed() => {}
                Ok(status) => drop(before.statuses.insert(name, status)),
                Err(problem) => {
                    tracing::warn!(file, problem, "the status cannot be read");
                    before.unknown.insert(name, problem);
                }
            }
        }
        Ok(before)
    }
}

/// What a status says; or why that is not known.
fn status_of(folder: &Folder, file: &str) -> Result<Status, String> {
    let found = folder.look_at(file).map_err(|e| e.to_string())?;
    let (path, print) = found.ok_or("it is no file, or leads out of the folder")?;
    if print.bytes > STATUS_BYTES_MAX {
        let bytes = print.bytes;
        return Err(format!(
            "it has {bytes} bytes, at most {STATUS_BYTES_MAX} are read"
        ));
    }
    let bytes = disk::read(&path, print).map_err(|e| e.to_string())?;
    let bytes = bytes.ok_or("it changes while it is read")?;
    Status::read(&bytes).ok_or_else(|| "it is no status of a task".to_owned())
}

/// Looks at the folder, again and again.
#[derive(Debug)]
pub(super) struct Looker {
    queue: QueueName,
    cell: CellId,
    /// Files that are no tasks as they are.
    refused: BTreeMap<String, Refused>,
    /// Links that lead elsewhere and the like, of which it was said that they are left alone.
    left_alone: BTreeSet<String>,
    /// Files that have a status which cannot be read.
    unknown: BTreeMap<String, Unknown>,
}

/// A file of which an earlier process wrote what cannot be read.
#[derive(Debug)]
struct Unknown {
    problem: String,
    is_told: bool,
}

/// A file that is no task as it is.
#[derive(Debug)]
struct Refused {
    print: Print,
    problem: Problem,
    since: Instant,
    is_told: bool,
}

impl Looker {
    /// `unknown` are the tasks whose status cannot be read, and why.
    pub(super) fn new(queue: QueueName, cell: CellId, unknown: BTreeMap<String, String>) -> Self {
        let is_told = false;
        let unknown = unknown.into_iter();
        let unknown = unknown.map(|(name, problem)| (name, Unknown { problem, is_told }));
        Self {
            unknown: unknown.collect(),
            queue,
            cell,
            refused: BTreeMap::new(),
            left_alone: BTreeSet::new(),
        }
    }

    /// Files that are to be submitted now, each with its status on disk: a few at a time.
    pub(super) fn look(&mut self, folder: &Folder, ledger: &mut Ledger) -> Vec<(String, Order)> {
        let files = match folder.names() {
            Ok(files) => files,
            Err(e) => {
                let folder = folder.path().display().to_string();
                tracing::error!(folder, error = %e, "the folder cannot be read");
                return Vec::new();
            }
        };
        let tasks: BTreeSet<&str> = files.iter().filter_map(|f| names::of_task(f)).collect();
        ledger.only(&tasks);
        self.only(folder, &tasks);
        let mut claims = Vec::new();
        for name in tasks {
            if claims.len() == CLAIMS_MAX {
                break;
            }
            if !ledger.may_want(name) {
                continue;
            }
            match self.take(folder, ledger, name) {
                Ok(claim) => claims.extend(claim.map(|order| (name.to_owned(), order))),
                // It is gone again.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    tracing::warn!(file = names::task(name), error = %e, "it is not taken yet");
                }
            }
        }
        claims
    }

    /// What was said of files that are gone is over.
    fn only(&mut self, folder: &Folder, there: &BTreeSet<&str>) {
        self.left_alone.retain(|name| there.contains(name.as_str()));
        self.refused.retain(|name, refused| {
            let is_there = there.contains(name.as_str());
            if !is_there && refused.is_told {
                // Should it stay, it is in nobody's way.
                let _ = folder.remove(&names::error(name));
            }
            is_there
        });
        for (name, unknown) in &mut self.unknown {
            if unknown.is_told && !there.contains(name.as_str()) {
                unknown.is_told = false;
                let _ = folder.remove(&names::error(name));
            }
        }
    }

    /// Whether a file was perhaps submitted before; says so beside it. Without its status it is new.
    fn is_unknown(&mut self, folder: &Folder, name: &str) -> io::Result<bool> {
        let Some(unknown) = self.unknown.get_mut(name) else {
            return Ok(false);
        };
        let status = names::status(name);
        if folder.has_none(&status) {
            self.unknown.remove(name);
            folder.remove(&names::error(name))?;
            return Ok(false);
        }
        if !unknown.is_told {
            let text = status::unknown(&status, &unknown.problem);
            folder.write(&names::error(name), &text)?;
            unknown.is_told = true;
            tracing::warn!(
                file = names::task(name),
                "left alone: its status cannot be read"
            );
        }
        Ok(true)
    }

    /// Takes a file, where it is to be taken: writes its status, and returns its task.
    fn take(
        &mut self,
        folder: &Folder,
        ledger: &mut Ledger,
        name: &str,
    ) -> io::Result<Option<Order>> {
        let Some((path, print)) = folder.look_at(&names::task(name))? else {
            if self.left_alone.insert(name.to_owned()) {
                let file = names::task(name);
                tracing::warn!(
                    file,
                    "left alone: it is no file, or leads out of the folder"
                );
            }
            return Ok(None);
        };
        if !ledger.wants(name, print)
            || self.is_unknown(folder, name)?
            || self.is_refused(folder, name, print)?
        {
            return Ok(None);
        }
        let read = match claim::check(name, print.bytes) {
            Ok(()) => disk::read(&path, print),
            Err(problem) => return self.refuse(folder, name, print, problem),
        };
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return self.refuse(folder, name, print, Problem::unreadable(&e));
            }
            Err(e) => return Err(e),
        };
        let order = match claim::task(&bytes, name, &self.queue, &self.cell) {
            Ok(order) => order,
            Err(problem) => return self.refuse(folder, name, print, problem),
        };
        let was_refused = self.refused.remove(name).is_some();
        let sha256 = claim::sha256(&bytes);
        let place = folder.path().to_string_lossy();
        let key = claim::key(&place, name, &print.identity(), &sha256);
        match ledger.claim(name, (print, sha256), order, (key, new_id(), now_ms())) {
            Claim::Known => {
                if was_refused {
                    folder.remove(&names::error(name))?;
                }
                Ok(None)
            }
            Claim::Submit(order, status) => {
                folder.write(&names::status(name), &status.text())?;
                // What is there of an earlier file of that name is not this one's.
                folder.remove(&names::result(name))?;
                folder.remove(&names::error(name))?;
                Ok(Some(*order))
            }
        }
    }

    /// Whether a file was refused as it is; says so once it counts as finished.
    fn is_refused(&mut self, folder: &Folder, name: &str, print: Print) -> io::Result<bool> {
        let Some(refused) = self.refused.get_mut(name).filter(|r| r.print == print) else {
            return Ok(false);
        };
        let is_finished = !refused.problem.may_be_unfinished || refused.since.elapsed() >= SETTLED;
        if is_finished && !refused.is_told {
            let text = status::error(&refused.problem.lines);
            folder.write(&names::error(name), &text)?;
            refused.is_told = true;
            tracing::warn!(file = names::task(name), "not taken: see its error file");
        }
        Ok(true)
    }

    /// Remembers that a file is no task as it is.
    fn refuse(
        &mut self,
        folder: &Folder,
        name: &str,
        print: Print,
        problem: Problem,
    ) -> io::Result<Option<Order>> {
        let refused = Refused {
            print,
            problem,
            since: Instant::now(),
            is_told: false,
        };
        self.refused.insert(name.to_owned(), refused);
        self.is_refused(folder, name, print)?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
