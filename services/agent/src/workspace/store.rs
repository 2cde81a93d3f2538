//! Storing the files that an attempt leaves, within the limits of all of them together: those that its
//! task declared, and those that its program attaches while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conductor_protocol::event::AttemptArtifact;
use conductor_protocol::ids::Lease;

use super::collect::{self, ARTIFACTS_BYTES_MAX, ArtifactStore, FILES_MAX, Hashed};

/// How often the storing of an artifact is tried, with growing pauses between.
const TRIES: u32 = 7;
/// The first of those pauses.
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps the files of one attempt. Clones share what is counted.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    lease: Lease,
    store: Arc<dyn ArtifactStore>,
    counted: Arc<Mutex<Counted>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    bytes: u64,
    files: usize,
}

impl Keeper {
    /// One that has kept nothing yet.
    pub(crate) fn new(lease: Lease, store: Arc<dyn ArtifactStore>) -> Self {
        Self {
            lease,
            store,
            counted: Arc::default(),
        }
    }

    /// Counts a file among those of the attempt, if there is room for it; says of what there is not.
    pub(crate) fn admit(&self, size: u64) -> Result<(), String> {
        let mut counted = self.counted();
        let bytes = counted.bytes.saturating_add(size);
        if bytes > ARTIFACTS_BYTES_MAX {
            return Err(format!(
                "the artifacts have more than {ARTIFACTS_BYTES_MAX} bytes"
            ));
        }
        if counted.files >= FILES_MAX {
            return Err(format!("there are more than {FILES_MAX} artifacts"));
        }
        *counted = Counted {
            bytes,
            files: counted.files + 1,
        };
        Ok(())
    }

    /// One that was admitted was not kept after all.
    pub(crate) fn dismiss(&self, size: u64) {
        let mut counted = self.counted();
        counted.bytes = counted.bytes.saturating_sub(size);
        counted.files = counted.files.saturating_sub(1);
    }

    /// Stores a file; what is to be said of it.
    pub(crate) async fn keep(&self, name: &str, hashed: Hashed) -> Result<AttemptArtifact, String> {
        let Hashed { file, sha256, size } = hashed;
        let mut pause = PAUSE;
        for tried in 1..=TRIES {
            let copy = file.try_clone().map_err(|e| e.to_string())?;
            match self.store.store(&sha256, size, copy).await {
                Ok(()) => break,
                Err(problem) if tried == TRIES => return Err(problem),
                Err(problem) => {
                    tracing::warn!(task = %self.lease.task, name, problem, "an artifact was not stored, trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        Ok(AttemptArtifact {
            lease: self.lease,
            name: name.to_owned(),
            sha256,
            size,
            media_type: collect::media_type(name),
        })
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens and hashes a file, which may take a while.
pub(crate) async fn hashed(workspace: &Path, path: &str) -> Result<Hashed, String> {
    let (workspace, path): (PathBuf, String) = (workspace.to_owned(), path.to_owned());
    let done = tokio::task::spawn_blocking(move || collect::open(&workspace, &path)).await;
    done.map_err(|e| e.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{Shelf, lease};

    #[test]
    fn all_files_of_an_attempt_have_one_limit() {
        let keeper = Keeper::new(lease(), Arc::new(Shelf::default()));
        let clone = keeper.clone();
        keeper.admit(ARTIFACTS_BYTES_MAX - 1).unwrap();
        let most = clone.admit(2).unwrap_err();
        assert!(most.contains("more than 1073741824 bytes"), "{most}");
        clone.admit(1).unwrap();
        keeper.dismiss(1);
        for _ in 1..FILES_MAX {
            clone.admit(0).unwrap();
        }
        let most = keeper.admit(0).unwrap_err();
        assert!(most.contains("more than 1000 artifacts"), "{most}");
    }
}
