//! A deployment: what a device is to load and to install.

use super::Links;
use super::lenient::{identifier, null_is_default, optional_text, scalar};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

/// The answer of `deploymentBase`, `installedBase` and `confirmationBase`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentBase {
    /// The action: a decimal number from `mcp serve`, opaque from others.
    #[serde(deserialize_with = "identifier")]
    pub id: String,
    /// What is to be done. Named `confirmation` while the action waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// The same, in answers of `confirmationBase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Deployment>,
    /// Messages of the action, if asked for.
    #[serde(rename = "actionHistory", default, skip_serializing_if = "Option::is_none")]
    pub action_history: Option<ActionHistory>,
    /// Links of ours: `mcp-task`, `mcp-list`, `mcp-session`.
    #[serde(rename = "_links", default, skip_serializing_if = "Links::is_empty")]
    pub links: Links,
}

/// What is to be done, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// How the download is handled.
    pub download: Handling,
    /// How the installation is handled.
    pub update: Handling,
    /// Whether the installation may run now, if the action has a window.
    #[serde(rename = "maintenanceWindow", default, skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<MaintenanceWindow>,
    /// The software modules.
    #[serde(default, deserialize_with = "null_is_default")]
    pub chunks: Vec<Chunk>,
}

/// How a download or an installation is handled. A word that is not known is read as [`Handling::Skip`]: whoever does
/// not understand does less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Handling {
    /// Not now.
    Skip,
    /// When it suits the device.
    Attempt,
    /// At once.
    Forced,
}

impl<'de> Deserialize<'de> for Handling {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(from)?.to_ascii_lowercase().as_str() {
            "forced" => Self::Forced,
            "attempt" => Self::Attempt,
            _ => Self::Skip,
        })
    }
}

/// Whether a maintenance window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaintenanceWindow {
    /// The window is open.
    Available,
    /// The window is closed. Also read from words that are not known.
    #[serde(other)]
    Unavailable,
}

/// A software module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The module's type: `bApp`, `jvm`, `os`, or the operator's.
    #[serde(default, deserialize_with = "null_is_default")]
    pub part: String,
    /// The module's version.
    #[serde(default, deserialize_with = "null_is_default")]
    pub version: String,
    /// The module's name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// Whether the artifacts are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// The files.
    #[serde(default, deserialize_with = "null_is_default")]
    pub artifacts: Vec<Artifact>,
    /// What else the server says of the module.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<Metadata>,
}

/// A file of a software module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The file's name. Not checked here: whoever makes a path of it does.
    pub filename: String,
    /// The hashes that the server states.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hashes: Hashes,
    /// The size in bytes.
    pub size: u64,
    /// Relations: `download`, `md5sum` (https), `download-http`, `md5sum-http`.
    #[serde(rename = "_links", default, skip_serializing_if = "Links::is_empty")]
    pub links: Links,
}

/// Hashes of an artifact, in lower-case hexadecimal. `mcp serve` states all; others any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// SHA-1. Authorises nothing.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    /// MD5. Authorises nothing.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// SHA-256.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// BLAKE3, from `mcp serve` only.
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// An entry of a chunk's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The entry's name.
    pub key: String,
    /// The entry's value.
    #[serde(deserialize_with = "metadata_value")]
    pub value: String,
}

fn metadata_value<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(scalar(value.clone()).unwrap_or_else(|| value.to_string()))
}

/// Messages of an action, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionHistory {
    /// The action's state in hawkBit's words: `RUNNING`, `FINISHED`, `ERROR`, `CANCELED`...
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: String,
    /// The messages. Those by the server begin `Update Server: `.
    #[serde(default, deserialize_with = "null_is_default")]
    pub messages: Vec<String>,
}
