//! The smaller documents of an action: cancelling, confirming, saying what runs already.

use super::Links;
use super::lenient::{identifier, optional_text};
use serde::{Deserialize, Serialize};

/// The answer of `cancelAction`. Both identifiers are the action to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The action to stop.
    #[serde(deserialize_with = "identifier")]
    pub id: String,
    /// The action to stop, once more.
    #[serde(rename = "cancelAction")]
    pub cancel_action: CancelAction,
}

/// The inner half of [`Cancel`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelAction {
    /// The action to stop.
    #[serde(rename = "stopId", deserialize_with = "identifier")]
    pub stop_id: String,
}

impl Cancel {
    /// The document that asks to stop `action`.
    #[must_use]
    pub fn new(action: &str) -> Self {
        Self { id: action.into(), cancel_action: CancelAction { stop_id: action.into() } }
    }
}

/// The answer of `confirmationBase`. Relations: `activateAutoConfirm` or `deactivateAutoConfirm`, `confirmationBase`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmationBase {
    /// Whether the device confirms by itself.
    #[serde(rename = "autoConfirm", default)]
    pub auto_confirm: AutoConfirm,
    /// What the device may do.
    #[serde(rename = "_links", default, skip_serializing_if = "Links::is_empty")]
    pub links: Links,
}

/// Whether a device confirms every action by itself, and who asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoConfirm {
    /// Whether it does.
    #[serde(default)]
    pub active: bool,
    /// Who asked for it.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// Why.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Since when, in milliseconds of Unix time.
    #[serde(rename = "activatedAt", default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<i64>,
}

/// The optional body of `activateAutoConfirm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoConfirmRequest {
    /// Who asks for it.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// Why.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// The body of `PUT installedBase`: what the device runs already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The name of the software.
    pub name: String,
    /// Its version.
    pub version: String,
}
