//! The answer to a poll.

use super::lenient::null_is_default;
use super::{Links, Sleep};
use serde::{Deserialize, Serialize};

/// The answer to a poll: when to come again, and what waits for the device.
///
/// Relations: at most one of `deploymentBase`, `confirmationBase` and `cancelAction`; `installedBase`, `configData`;
/// from `mcp serve` also `mcp-list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerBase {
    /// Settings of the device.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Config,
    /// What waits for the device.
    #[serde(rename = "_links", default, skip_serializing_if = "Links::is_empty")]
    pub links: Links,
    /// From `mcp serve` to our agents: all that waits for the device, each as `links` would have it alone.
    #[serde(
        rename = "mcp.offers",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub offers: Vec<Links>,
}

/// Settings of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How the device polls.
    #[serde(default, deserialize_with = "null_is_default")]
    pub polling: Polling,
}

/// How a device polls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polling {
    /// The time until the next poll. `mcp serve` always states it; `None` when read from a server that does not, or
    /// that writes what cannot be read.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Sleep>,
}

fn readable<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Sleep>, D::Error> {
    Ok(serde_json::Value::deserialize(from)?.as_str().and_then(Sleep::read))
}

impl ControllerBase {
    /// An answer that asks the device to come again after `sleep`.
    #[must_use]
    pub fn new(sleep: Sleep) -> Self {
        let polling = Polling { sleep: Some(sleep) };
        Self { config: Config { polling }, ..Self::default() }
    }
}
