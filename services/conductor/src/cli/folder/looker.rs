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

/// Most files that are taken at a time.
pub(super) const CLAIMS_MAX: usize = 100;
/// How long a file must stay as it is before it counts as finished, though it is no task.
const SETTLED: Duration = Duration::from_secs(2);
/// Largest status that is read, in bytes; ours are far smaller.
const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// What earlier processes wrote of the files that are there.
pub(super) fn statuses(folder: &Folder) -> BTreeMap<String, Status> {
    let read = |file: &str| -> io::Result<Option<Status>> {
        let Some((path, print)) = folder.look_at(file)? else {
            return Ok(None);
        };
        if print.bytes > STATUS_BYTES_MAX {
            return Ok(None);
        }
        let bytes = disk::read(&path, print)?.unwrap_or_default();
        let is_over = |status: &Status| status.file_removed && status.is_closed();
        Ok(Status::read(&bytes).filter(|status| !is_over(status)))
    };
    let mut found = BTreeMap::new();
    for file in folder.names().unwrap_or_default() {
        let Some(name) = names::of_status(&file) else {
            continue;
        };
        match read(&file) {
            Ok(status) => found.extend(status.map(|status| (name.to_owned(), status))),
            // Its key still keeps it from counting twice.
            Err(e) => tracing::warn!(file, error = %e, "the status cannot be read"),
        }
    }
    found
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
    pub(super) fn new(queue: QueueName, cell: CellId) -> Self {
        Self {
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
        if !ledger.wants(name, print) || self.is_refused(folder, name, print)? {
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
