//! Secrets that a task is granted, as files that its program can read and nothing else shows.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use conductor_modelproxy::listen::give_to_owner_of;

/// Where they are, in the directory that an attempt shares with its agent.
const FOLDER: &str = "secrets";
/// The variable that tells a program where they are.
pub const VARIABLE: &str = "CONDUCTOR_SECRETS_DIR";
/// Most bytes of one.
const BYTES_MAX: u64 = 1 << 20;

/// Secrets that an agent can grant: read when they are granted, so that they can be changed.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Files named as the secrets are.
    dir: Option<PathBuf>,
}

/// What one attempt is granted. Not to be printed.
#[derive(Default)]
pub struct Granted(Vec<(String, Vec<u8>)>);

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Secrets {
    /// Those in variables of the agent, and in the files of `dir`.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// What a task asks for by name.
    pub fn grant(&self, names: &[String]) -> Result<Granted, String> {
        let grant = |name: &String| Ok((name.clone(), self.find(name)?));
        names
            .iter()
            .map(grant)
            .collect::<Result<_, String>>()
            .map(Granted)
    }

    fn find(&self, name: &str) -> Result<Vec<u8>, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_name) {
            return Err(format!("{name:?} is no name of a secret"));
        }
        let variable = format!("CONDUCTOR_SECRET_{name}");
        if let Some(value) = std::env::var_os(&variable) {
            return Ok(value.into_encoded_bytes());
        }
        let Some(dir) = &self.dir else {
            return Err(format!(
                "the secret {name:?} is not there: set {variable} for the agent, or give it --secrets-dir"
            ));
        };
        let path = dir.join(name);
        let wrong = |e: io::Error| {
            let path = path.display();
            format!(
                "the secret {name:?} is not there: {path}: {e}; and {variable} is not set for the agent"
            )
        };
        if fs::metadata(&path).map_err(wrong)?.len() > BYTES_MAX {
            return Err(format!(
                "the secret {name:?} has more than {BYTES_MAX} bytes"
            ));
        }
        fs::read(&path).map_err(wrong)
    }
}

impl Granted {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secrets themselves, to be masked.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(_, value)| value.as_slice())
    }

    /// Where a program finds them, given where it finds what it shares with the agent.
    pub fn dir(run: &Path) -> PathBuf {
        run.join(FOLDER)
    }

    /// Writes them, each for its owner's eyes alone.
    pub fn write(&self, run: &Path) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        let dir = Self::dir(run);
        let write = || {
            fs::DirBuilder::new().mode(0o700).create(&dir)?;
            for (name, value) in &self.0 {
                let path = dir.join(name);
                let mut options = fs::OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create_new(true)
                    .mode(0o400)
                    .open(&path)?;
                file.write_all(value)?;
                give_to_owner_of(run, &path)?;
            }
            give_to_owner_of(run, &dir)
        };
        write().map_err(|e: io::Error| format!("its secrets cannot be written: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_granted_is_a_file_for_its_owner_alone() {
        let (from, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("TOKEN"), "t0k3n-value\n").unwrap();
        let secrets = Secrets::new(Some(from.path().to_owned()));
        let granted = secrets.grant(&["TOKEN".to_owned()]).unwrap();
        assert_eq!(format!("{granted:?}"), r#"["TOKEN"]"#);
        granted.write(run.path()).unwrap();
        let path = Granted::dir(run.path()).join("TOKEN");
        assert_eq!(fs::read_to_string(&path).unwrap(), "t0k3n-value\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(&Granted::dir(run.path()))),
            (0o400, 0o700)
        );
        assert_eq!(granted.values().collect::<Vec<_>>(), [b"t0k3n-value\n"]);
    }

    #[test]
    fn what_is_not_there_is_named_with_its_remedy() {
        let said = Secrets::default().grant(&["TOKEN".to_owned()]).unwrap_err();
        assert!(
            said.contains("CONDUCTOR_SECRET_TOKEN") && said.contains("--secrets-dir"),
            "{said}"
        );
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Some(dir.path().to_owned()));
        assert!(
            secrets
                .grant(&["TOKEN".to_owned()])
                .unwrap_err()
                .contains("No such file")
        );
        for name in ["../x", "", "a/b", ".."] {
            assert!(
                secrets
                    .grant(&[name.to_owned()])
                    .unwrap_err()
                    .contains("is no name"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_task_without_secrets_gets_no_directory() {
        let run = tempfile::tempdir().unwrap();
        Secrets::default()
            .grant(&[])
            .unwrap()
            .write(run.path())
            .unwrap();
        assert!(!Granted::dir(run.path()).exists());
    }
}
