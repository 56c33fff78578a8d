//! What a device says of an action.

use super::lenient::{optional_integer, optional_text, texts};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Feedback on a deployment or a cancellation. The time that a device states is not kept: device clocks are unreliable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// The action, as the device wrote it. The path decides.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the device says.
    pub status: Status,
}

/// The code with which our agents close an action with success because the device has what the task brings.
pub const UNNEEDED: i32 = 2080;

/// The state of an action at the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the device does.
    pub execution: Execution,
    /// How it went, and how far it is.
    pub result: Outcome,
    /// A code of the device's own.
    #[serde(default, deserialize_with = "optional_integer", skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// Messages. Always written as a list; a single text and `null` are read too.
    #[serde(default, deserialize_with = "texts")]
    pub details: Vec<String>,
}

/// How an action went, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it succeeded.
    pub finished: Finished,
    /// How far it is. Clients write any object here; what has no `cnt` and `of` is `None`.
    #[serde(default, deserialize_with = "progress", skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// Steps done of all steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub cnt: u64,
    /// All steps.
    pub of: u64,
}

fn progress<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Progress>, D::Error> {
    let value = Value::deserialize(from)?;
    let member = |name| value.get(name).and_then(Value::as_u64);
    Ok(member("cnt").zip(member("of")).map(|(cnt, of)| Progress { cnt, of }))
}

/// Makes an enum of words: written in lower case, read in any.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// The word on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let word = String::deserialize(from)?;
                match word.trim().to_ascii_lowercase().as_str() {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(D::Error::custom(concat!("not one of: ", $($word, " ",)*))),
                }
            }
        }
    };
}

words! {
    /// What a device does with an action.
    Execution {
        /// The action is over.
        Closed = "closed",
        /// It is under way.
        Proceeding = "proceeding",
        /// The device gave it up.
        Canceled = "canceled",
        /// It is planned.
        Scheduled = "scheduled",
        /// The device does not do it (a deployment: a warning; a cancellation: the deployment goes on).
        Rejected = "rejected",
        /// It goes on after a pause.
        Resumed = "resumed",
        /// The artifacts are there.
        Downloaded = "downloaded",
        /// The artifacts are being loaded.
        Download = "download",
    }
}

words! {
    /// Whether an action succeeded.
    Finished {
        /// It did.
        Success = "success",
        /// It did not.
        Failure = "failure",
        /// That is not known yet, or does not apply.
        None = "none",
    }
}

words! {
    /// A device's answer to an action that waits for confirmation.
    Confirmation {
        /// The action may start.
        Confirmed = "confirmed",
        /// It may not; the device can be asked again.
        Denied = "denied",
    }
}

/// Feedback on an action that waits for confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmationFeedback {
    /// The answer.
    pub confirmation: Confirmation,
    /// A code of the device's own.
    #[serde(default, deserialize_with = "optional_integer", skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// Messages.
    #[serde(default, deserialize_with = "texts")]
    pub details: Vec<String>,
}

impl Feedback {
    /// Feedback as `mcp agent` sends it.
    #[must_use]
    pub fn new(action: &str, execution: Execution, finished: Finished, details: Vec<String>) -> Self {
        let result = Outcome { finished, progress: None };
        let status = Status { execution, result, code: None, details };
        Self { id: Some(action.into()), status }
    }
}
