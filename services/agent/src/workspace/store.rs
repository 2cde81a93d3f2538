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
    /// Whose turn it is to hash a file.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The room of a file among those of its attempt, which is given back unless it stays.
#[derive(Debug)]
pub(crate) struct Room {
    counted: Arc<Mutex<Counted>>,
    size: u64,
    stays: bool,
}

impl Room {
    /// The file was kept.
    pub(crate) fn stays(mut self) {
        self.stays = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.stays {
            let mut counted = lock(&self.counted);
            counted.bytes = counted.bytes.saturating_sub(self.size);
            counted.files = counted.files.saturating_sub(1);
        }
    }
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
            turn: Arc::default(),
        }
    }

    /// Counts a file of that many bytes among those of the attempt, if there is room for it; says of
    /// what there is not.
    pub(crate) fn admit(&self, size: u64) -> Result<Room, String> {
        let mut counted = lock(&self.counted);
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
        Ok(Room {
            counted: Arc::clone(&self.counted),
            size,
            stays: false,
        })
    }

    /// Opens and hashes a file of a workspace, if there is room for it. One of an attempt at a time,
    /// and none without room: whatever its program asks for costs the host one core at most.
    pub(crate) async fn take_in(
        &self,
        workspace: &Path,
        path: &str,
    ) -> Result<(Hashed, Room), String> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (keeper, workspace, path) = (self.clone(), workspace.to_owned(), path.to_owned());
        let done = tokio::task::spawn_blocking(move || {
            // It goes on when nobody waits for it any more, and so does its turn.
            let _turn = turn;
            keeper.take_in_now(&workspace, &path)
        });
        done.await.map_err(|e| e.to_string())?
    }

    fn take_in_now(&self, workspace: &Path, path: &str) -> Result<(Hashed, Room), String> {
        let (file, size) = collect::open(workspace, path)?;
        let room = self.admit(size)?;
        Ok((collect::hash_opened(path, file, size)?, room))
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
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens and hashes a file, which may take a while.
pub(crate) async fn hashed(workspace: &Path, path: &str) -> Result<Hashed, String> {
    let (workspace, path): (PathBuf, String) = (workspace.to_owned(), path.to_owned());
    let done = tokio::task::spawn_blocking(move || {
        let (file, size) = collect::open(&workspace, &path)?;
        collect::hash_opened(&path, file, size)
    });
    done.await.map_err(|e| e.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{Shelf, lease};
    use crate::trees::tests::refusing;

    #[test]
    fn all_files_of_an_attempt_have_one_limit() {
        let keeper = Keeper::new(lease(), Arc::new(Shelf::default()));
        let clone = keeper.clone();
        keeper.admit(ARTIFACTS_BYTES_MAX - 1).unwrap().stays();
        let most = clone.admit(2).unwrap_err();
        assert!(most.contains("more than 1073741824 bytes"), "{most}");
        drop(clone.admit(1).unwrap());
        for _ in 1..FILES_MAX {
            clone.admit(0).unwrap().stays();
        }
        let most = keeper.admit(0).unwrap_err();
        assert!(most.contains("more than 1000 artifacts"), "{most}");
    }

    #[test]
    fn what_there_is_no_room_for_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "abc").unwrap();
        let keeper = Keeper::new(lease(), Arc::new(Shelf::default()));
        let take_in = || {
            let act = || keeper.take_in_now(dir.path(), "a").map(drop);
            refusing(libc::SYS_read, Vec::new(), act).unwrap_err()
        };
        let unread = take_in();
        assert!(unread.contains("Input/output error"), "{unread}");
        let _all = keeper.admit(ARTIFACTS_BYTES_MAX).unwrap();
        let most = take_in();
        assert!(most.contains("more than 1073741824 bytes"), "{most}");
    }

    #[test]
    fn one_file_is_hashed_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "abc").unwrap();
        let keeper = Keeper::new(lease(), Arc::new(Shelf::default()));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let turn = keeper.turn.lock().await;
            let mut waits = Box::pin(keeper.take_in(dir.path(), "a"));
            assert!(futures::poll!(&mut waits).is_pending());
            // Whatever had begun is done when this is: there is one thread for both.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            std::fs::write(&file, "later").unwrap();
            drop(turn);
            let (hashed, _room) = waits.await.unwrap();
            assert_eq!(hashed.size, 5);
        });
    }
}
