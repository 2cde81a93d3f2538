//! How the process ends (design section 9).

use std::process::ExitCode;

use conductor_eventlog::jetstream::ConnectError;
use conductor_eventlog::jetstream::provision::ProvisionError;
use conductor_eventlog::{AppendError, LogError};
use conductor_replica::reader::ReadError;
use conductor_telemetry::ExportError;

/// Exit codes people rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All is well.
    Ok = 0,
    /// It failed.
    Failure = 1,
    /// It was called wrongly.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// It is not allowed.
    Denied = 4,
    /// It is not in a state for that.
    Conflict = 5,
    /// It took too long.
    TimedOut = 6,
    /// The servers cannot be reached.
    Unreachable = 7,
    /// The task that was waited for failed.
    TaskFailed = 10,
    /// The task that was waited for was cancelled.
    TaskCancelled = 11,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed, for people.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

pub(crate) type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Exit, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl From<ConnectError> for Failure {
    fn from(e: ConnectError) -> Self {
        let message = e.to_string();
        match e {
            ConnectError::Unreachable { .. } => Self::new(Exit::Unreachable, message)
                .hint("start one with `conductor up`, or name a running server with --nats-url"),
            ConnectError::Denied { .. } | ConnectError::Untrusted { .. } => {
                Self::new(Exit::Denied, message)
            }
            ConnectError::Invalid(_) => Self::new(Exit::Usage, message),
        }
    }
}

impl From<LogError> for Failure {
    fn from(e: LogError) -> Self {
        let message = e.to_string();
        match e {
            LogError::Unavailable(_) => Self::new(Exit::Unreachable, message).hint(
                "is this the right cell (--cell), and was it started once with `conductor up`?",
            ),
            LogError::Refused(_) | LogError::Lost(_) => Self::new(Exit::Failure, message),
        }
    }
}

impl From<AppendError> for Failure {
    fn from(e: AppendError) -> Self {
        let code = match &e {
            AppendError::Unavailable(_) => Exit::Unreachable,
            AppendError::Conflict(_) => Exit::Conflict,
            AppendError::Refused(_) => Exit::Failure,
        };
        Self::new(code, e.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Log(e) => e.into(),
            ReadError::UnknownFormat { .. } => Self::new(Exit::Failure, e.to_string()),
        }
    }
}

impl From<ProvisionError> for Failure {
    fn from(e: ProvisionError) -> Self {
        let code = match &e {
            ProvisionError::Unavailable(_) => Exit::Unreachable,
            ProvisionError::Refused { .. } => Exit::Denied,
            _ => Exit::Failure,
        };
        let failure = Self::new(code, e.to_string());
        match e {
            ProvisionError::Gone { .. } => failure.hint(
                "see what the servers say of it in their own logs. To begin a new log, which removes \
                 what is left of the old: --accept-risk new-log",
            ),
            _ => failure,
        }
    }
}

impl From<ExportError> for Failure {
    fn from(e: ExportError) -> Self {
        let code = match &e {
            ExportError::Variable { .. }
            | ExportError::Headers { .. }
            | ExportError::File { .. }
            | ExportError::Setup { .. } => Exit::Usage,
            ExportError::Refused { .. } => Exit::Unreachable,
        };
        Self::new(code, e.to_string())
    }
}

macro_rules! plain_failure {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Failure {
            fn from(e: $ty) -> Self { Self::new(Exit::Failure, e.to_string()) }
        }
    )*};
}

plain_failure!(
    conductor_nats::DataDirError,
    conductor_nats::LocateError,
    conductor_nats::ServerError,
    ractor::SpawnErr,
    std::io::Error
);
