//! Keys of what the local server keeps on disk.

use std::path::{Path, PathBuf};

use conductor_nats::StoreKeys;

use crate::exit::{Failure, Outcome};

/// Which keys the store has.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct StoreArgs {
    /// File with the key by which the server encrypts what it keeps on disk
    #[arg(long, env = "CONDUCTOR_STORE_KEY_FILE", value_name = "FILE")]
    store_key_file: Option<PathBuf>,
    /// File with the key that the store had until now, for a start after which it has the other
    #[arg(
        long,
        env = "CONDUCTOR_PREVIOUS_STORE_KEY_FILE",
        value_name = "FILE",
        requires = "store_key_file"
    )]
    previous_store_key_file: Option<PathBuf>,
}

impl StoreArgs {
    /// What is in the files.
    pub(super) fn keys(&self) -> Outcome<Option<StoreKeys>> {
        let Some(file) = &self.store_key_file else {
            return Ok(None);
        };
        let current = read("--store-key-file", file)?;
        let previous = self.previous_store_key_file.as_deref();
        let previous = previous.map(|file| read("--previous-store-key-file", file));
        Ok(Some(StoreKeys {
            current,
            previous: previous.transpose()?,
        }))
    }
}

/// The key in a file, without the white space around it.
fn read(option: &str, path: &Path) -> Outcome<String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| Failure::usage(format!("{option} {shown}: {e}")))?;
    match text.trim() {
        "" => Err(Failure::usage(format!("{option} {shown} is empty"))),
        key if key.contains(['\n', '\r', '\0']) => Err(Failure::usage(format!(
            "{option} {shown} holds several lines; a key is one"
        ))),
        key => Ok(key.to_owned()),
    }
}
