//! The states of an action, and which feedback leads from one to another. Pure.
//!
//! ```text
//!  waiting --> [confirming] --> running --> finished | failed | cancelled
//!     |              |             |  ^
//!     v              v             v  | the device goes on
//!  cancelled     cancelled      cancelling --> cancelled | finished | failed
//!  unneeded  <-- the device has it already
//! ```

use super::words;
use crate::ddi::{Execution, Finished};

words! {
    /// The state of an action.
    ActionState {
        /// The device was not told of it yet.
        Waiting = "waiting",
        /// The device is to confirm it first.
        Confirming = "confirming",
        /// The device knows its terms.
        Running = "running",
        /// The device is to stop it.
        Cancelling = "cancelling",
        /// The device did it.
        Finished = "finished",
        /// The device said that it failed.
        Failed = "failed",
        /// It was stopped, replaced, or ended before it began.
        Cancelled = "cancelled",
        /// The device has what the task brings.
        Unneeded = "unneeded",
    }
}

impl ActionState {
    /// Whether something may still happen at the device.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Confirming | Self::Running | Self::Cancelling)
    }

    /// Whether the device knows its terms.
    #[must_use]
    pub const fn has_begun(self) -> bool {
        matches!(self, Self::Running | Self::Cancelling)
    }

    /// hawkBit's word for it, in an action's history.
    #[must_use]
    pub const fn in_hawkbit(self) -> &'static str {
        match self {
            Self::Waiting | Self::Running => "RUNNING",
            Self::Confirming => "WAIT_FOR_CONFIRMATION",
            Self::Cancelling => "CANCELING",
            Self::Finished | Self::Unneeded => "FINISHED",
            Self::Failed => "ERROR",
            Self::Cancelled => "CANCELED",
        }
    }
}

/// To what a device's feedback refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The deployment. With the flag set, having the bytes is all that is asked for.
    Deployment {
        /// Whether the action is for loading only.
        download_only: bool,
    },
    /// The request to cancel it.
    Cancellation,
}

/// What feedback does to an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is taken, and the action is in this state now.
    Taken(ActionState),
    /// The action is over.
    Gone,
    /// The action waits for confirmation: there is no deployment yet.
    Hidden,
    /// Nobody asked to cancel it.
    NotCancelling,
}

impl Report {
    /// What feedback does to an action in `state`.
    #[must_use]
    pub fn answer(self, state: ActionState, execution: Execution, finished: Finished) -> Answer {
        use ActionState as S;
        use Answer::Taken;
        let success = finished != Finished::Failure;
        match (self, state) {
            (Self::Cancellation, S::Cancelling) => Taken(match execution {
                Execution::Closed if success => S::Cancelled,
                Execution::Closed | Execution::Rejected => S::Running,
                // `canceled` is a common mistake for `closed`, and changes nothing.
                _ => S::Cancelling,
            }),
            (Self::Cancellation, _) => Answer::NotCancelling,
            (Self::Deployment { .. }, S::Confirming) => Answer::Hidden,
            (Self::Deployment { download_only }, S::Waiting | S::Running | S::Cancelling) => {
                let goes_on = if state == S::Cancelling { S::Cancelling } else { S::Running };
                Taken(match execution {
                    Execution::Closed if success => S::Finished,
                    Execution::Closed => S::Failed,
                    Execution::Canceled => S::Cancelled,
                    Execution::Downloaded if download_only => S::Finished,
                    _ => goes_on,
                })
            }
            // The cancellation came too late: what the device did is what counts.
            (Self::Deployment { .. }, S::Cancelled | S::Unneeded)
                if execution == Execution::Closed && finished == Finished::Success =>
            {
                Taken(S::Finished)
            }
            (Self::Deployment { .. }, _) => Answer::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ActionState as S;
    use Answer::{Gone, Hidden, NotCancelling, Taken};

    const INSTALL: Report = Report::Deployment { download_only: false };
    const LOAD: Report = Report::Deployment { download_only: true };

    #[test]
    fn feedback_on_a_deployment() {
        use Execution as E;
        use Finished as F;
        for (state, execution, finished, want) in [
            (S::Waiting, E::Proceeding, F::None, Taken(S::Running)),
            (S::Running, E::Proceeding, F::None, Taken(S::Running)),
            (S::Running, E::Scheduled, F::None, Taken(S::Running)),
            (S::Running, E::Resumed, F::None, Taken(S::Running)),
            (S::Running, E::Download, F::None, Taken(S::Running)),
            (S::Running, E::Downloaded, F::Success, Taken(S::Running)),
            (S::Running, E::Rejected, F::None, Taken(S::Running)),
            (S::Running, E::Canceled, F::None, Taken(S::Cancelled)),
            (S::Running, E::Closed, F::Success, Taken(S::Finished)),
            (S::Running, E::Closed, F::None, Taken(S::Finished)),
            (S::Running, E::Closed, F::Failure, Taken(S::Failed)),
            // While cancelling, a device may finish all the same.
            (S::Cancelling, E::Proceeding, F::None, Taken(S::Cancelling)),
            (S::Cancelling, E::Closed, F::Success, Taken(S::Finished)),
            (S::Cancelling, E::Closed, F::Failure, Taken(S::Failed)),
            (S::Cancelled, E::Closed, F::Success, Taken(S::Finished)),
            (S::Cancelled, E::Closed, F::Failure, Gone),
            (S::Cancelled, E::Proceeding, F::None, Gone),
            (S::Finished, E::Closed, F::Success, Gone),
            (S::Failed, E::Closed, F::Success, Gone),
            (S::Confirming, E::Closed, F::Success, Hidden),
        ] {
            assert_eq!(
                INSTALL.answer(state, execution, finished),
                want,
                "{state:?} {execution:?} {finished:?}"
            );
        }
        assert_eq!(LOAD.answer(S::Running, E::Downloaded, F::None), Taken(S::Finished));
    }

    #[test]
    fn feedback_on_a_cancellation() {
        use Execution as E;
        use Finished as F;
        for (execution, finished, want) in [
            (E::Closed, F::Success, S::Cancelled),
            (E::Closed, F::None, S::Cancelled),
            (E::Closed, F::Failure, S::Running),
            (E::Rejected, F::None, S::Running),
            (E::Canceled, F::Success, S::Cancelling),
            (E::Proceeding, F::None, S::Cancelling),
        ] {
            assert_eq!(Report::Cancellation.answer(S::Cancelling, execution, finished), Taken(want));
        }
        for state in
            [S::Waiting, S::Confirming, S::Running, S::Finished, S::Failed, S::Cancelled, S::Unneeded]
        {
            assert_eq!(Report::Cancellation.answer(state, E::Closed, F::Success), NotCancelling);
        }
    }
}
