//! What ANNOUNCE, JOIN and ADMIT agree on: versions of the wire format, and capabilities.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::WIRE_VERSION;

/// The versions of the wire format that a program speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest; at least 1.
    pub min: u8,
    /// The highest; not below the lowest.
    pub max: u8,
}

impl Versions {
    /// The versions of this program.
    pub const OURS: Self = Self { min: WIRE_VERSION, max: WIRE_VERSION };

    /// The highest version that both sides speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        (min <= max).then_some(max)
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let versions = Self { min: r.u8("lowest version")?, max: r.u8("highest version")? };
        r.check(versions.min >= 1, "lowest version")?;
        r.check(versions.min <= versions.max, "highest version")?;
        Ok(versions)
    }

    pub(super) fn encode(self, w: &mut Writer) {
        w.u8(self.min);
        w.u8(self.max);
    }
}

/// Features beyond what every program of this version has, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// Blocks may be sent in another coding than raw: short, zero or Zstandard.
    pub const CODED_BLOCKS: Self = Self(1);
    /// The capabilities of this program.
    pub const OURS: Self = Self::CODED_BLOCKS;

    /// The capabilities in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The capabilities in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The capabilities that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn decode(r: &mut Reader<'_>, field: &'static str) -> Result<Self> {
        r.u32(field).map(Self)
    }

    pub(super) fn encode(self, w: &mut Writer) {
        w.u32(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        let common = |a, b, c, d| Versions { min: a, max: b }.common(Versions { min: c, max: d });
        assert_eq!(common(1, 1, 1, 1), Some(1));
        assert_eq!(common(1, 3, 2, 9), Some(3));
        assert_eq!(common(2, 9, 1, 3), Some(3));
        assert_eq!(common(1, 1, 2, 3), None);
        assert_eq!(common(2, 3, 1, 1), None);
    }
}
