//! Why a submission is not known to be stored.

use conductor_eventlog::AppendError;
use conductor_protocol::Position;
use conductor_protocol::limits::SPEC_BYTES_MAX;

/// Why a submission is not known to be stored. An `index` counts the submissions of the call
/// from 0; it is 0 where one was submitted alone.
///
/// [`Self::Unencodable`], [`Self::TooLarge`] and [`Self::NeedByName`] are found before
/// anything is handed over: nothing of the call is stored, and nobody else is concerned.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It has no MessagePack form.
    #[error("submission {index} cannot be encoded: {problem}")]
    Unencodable {
        /// Which of the call.
        index: usize,
        /// Why.
        problem: rmp_serde::encode::Error,
    },
    /// Its encoded form is larger than a task may be.
    #[error(
        "submission {index} has {bytes} bytes, at most {SPEC_BYTES_MAX} are allowed; \
         put large inputs in a file and name it in the task"
    )]
    TooLarge {
        /// Which of the call.
        index: usize,
        /// Bytes of its encoded form.
        bytes: usize,
    },
    /// It needs a task by name. Names count within one record, and what shares a record is
    /// not for callers to say.
    #[error(
        "submission {index} needs {need:?}, which is no task id; \
         give the needed task an id of your own and name that"
    )]
    NeedByName {
        /// Which of the call.
        index: usize,
        /// The name.
        need: String,
    },
    /// The log refuses a record that held it; repeating it will not help.
    #[error("the log refuses the submission: {error}")]
    Refused {
        /// What the log says.
        error: AppendError,
        /// Where each submission of the call stands; `None` for those that were refused.
        /// Some may stand in other records, which were stored.
        stored: Vec<Option<Position>>,
    },
    /// The submitter's runtime has ended. What was handed over may or may not be stored.
    #[error("the submitter has ended; what was handed over may or may not be stored")]
    Ended,
}
