//! What a program reads on standard input: bytes that are known before it starts, or what is
//! said to it while it runs.
//!
//! The latter is a named pipe in the directory that the attempt shares with the agent, so that it
//! works through every sandbox and the reaper opens either in the same way.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{OpenOptions, Sender};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::dirs::write_new;

/// Words that may wait for a program to read them. One that reads none of so many has stopped
/// listening.
const WAITING_MAX: usize = 1_024;

/// What a program reads on standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// These bytes, then the end.
    Closed(Vec<u8>),
    /// These bytes, then what is said to it, until its last word.
    Open(Vec<u8>),
}

impl Input {
    /// Puts it at `path`, where the reaper opens it.
    pub fn place(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Closed(bytes) => write_new(path, bytes),
            Self::Open(_) => Ok(mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?),
        }
    }

    /// The agent's end of what was placed at `path`; to be had before the program starts.
    pub fn voice(&self, path: &Path) -> io::Result<Voice> {
        let Self::Open(first) = self else {
            return Ok(Voice::default());
        };
        // Opened for reading too: so nobody waits for the other end to be opened.
        let pipe = OpenOptions::new().read_write(true).open_sender(path)?;
        let (words, waiting) = mpsc::channel(WAITING_MAX);
        let speaking = tokio::spawn(speak(pipe, first.clone(), waiting));
        Ok(Voice {
            words: Some(words),
            speaking: Some(speaking),
        })
    }
}

/// The agent's end of a program's standard input. It never waits for the program; dropped, it
/// falls silent.
#[derive(Debug, Default)]
pub struct Voice {
    words: Option<mpsc::Sender<Vec<u8>>>,
    speaking: Option<JoinHandle<()>>,
}

impl Voice {
    /// Says something, after all that was said before; returns whether it can still be heard.
    pub fn say(&self, bytes: Vec<u8>) -> bool {
        let words = self.words.as_ref();
        words.is_some_and(|words| words.try_send(bytes).is_ok())
    }

    /// Ends the input, once what was said has been read.
    pub fn close(&mut self) {
        self.words = None;
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        if let Some(speaking) = &self.speaking {
            speaking.abort();
        }
    }
}

async fn speak(mut pipe: Sender, first: Vec<u8>, mut words: mpsc::Receiver<Vec<u8>>) {
    let mut word = Some(first);
    while let Some(bytes) = word {
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
        word = words.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Stdio;

    fn cat(path: &Path) -> tokio::process::Child {
        let mut command = tokio::process::Command::new("cat");
        command.stdin(fs::File::open(path).unwrap());
        command.stdout(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn what_is_said_to_a_running_program_arrives_in_order_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdin");
        // More than a pipe holds.
        let input = Input::Open(vec![b'a'; 300_000]);
        input.place(&path).unwrap();
        let mut voice = input.voice(&path).unwrap();
        let program = cat(&path);
        assert!(voice.say(b"b".to_vec()));
        assert!(voice.say(b"c".to_vec()));
        voice.close();
        assert!(!voice.say(b"too late".to_vec()));
        let heard = program.wait_with_output().await.unwrap().stdout;
        assert_eq!(heard.len(), 300_002);
        assert!(heard.ends_with(b"abc"));
    }

    #[tokio::test]
    async fn a_program_that_does_not_listen_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdin");
        let input = Input::Open(Vec::new());
        input.place(&path).unwrap();
        let voice = input.voice(&path).unwrap();
        let said = (0..10 * WAITING_MAX)
            .filter(|_| voice.say(vec![b'x'; 4096]))
            .count();
        assert!((WAITING_MAX..2 * WAITING_MAX).contains(&said), "{said}");
    }

    #[tokio::test]
    async fn an_input_that_is_known_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdin");
        let input = Input::Closed(b"all of it".to_vec());
        input.place(&path).unwrap();
        assert!(!input.voice(&path).unwrap().say(b"more".to_vec()));
        let heard = cat(&path).wait_with_output().await.unwrap().stdout;
        assert_eq!(heard, b"all of it");
    }
}
