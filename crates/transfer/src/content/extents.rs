//! Extents of a file: where it has data, and where it has holes.

use super::entry::EntryError;

/// The contents of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes that are stored.
    Data,
    /// Nothing is stored; it reads as zeros.
    Hole,
}

/// A run of a file's bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its contents.
    pub kind: ExtentKind,
    /// Offset of its first byte.
    pub start: u64,
    /// Its length in bytes; at least 1.
    pub len: u64,
}

/// The extents of a file, in order and without gaps. Neighbours are of different kinds, so the lengths of
/// data, hole, data and so on describe them. Only the first length may be 0, if the file begins with a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    lengths: Vec<u64>,
}

impl Extents {
    /// A file of `size` bytes without holes.
    #[must_use]
    pub fn solid(size: u64) -> Self {
        Self { lengths: if size == 0 { Vec::new() } else { vec![size] } }
    }

    /// Extents from the lengths of data, hole, data and so on.
    ///
    /// # Errors
    /// If a length after the first is 0, nothing follows a first length of 0, or the sum overflows.
    pub fn from_lengths(lengths: Vec<u64>) -> Result<Self, EntryError> {
        let lone_zero = lengths == [0];
        if lone_zero || lengths.iter().skip(1).any(|&len| len == 0) {
            return Err(EntryError::Extents);
        }
        lengths.iter().try_fold(0_u64, |sum, &len| sum.checked_add(len)).ok_or(EntryError::Size)?;
        Ok(Self { lengths })
    }

    /// Lengths of data, hole, data and so on.
    #[must_use]
    pub fn lengths(&self) -> &[u64] {
        &self.lengths
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        // `from_lengths` has checked that they fit.
        self.lengths.iter().sum()
    }

    /// Bytes of its data, without the holes.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.lengths.iter().step_by(2).sum()
    }

    /// The runs of the file that the bytes `from..from + len` of its data are, as offset and length, in order.
    pub fn runs_of_data(&self, from: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut before = 0;
        let data = self.iter().filter(|extent| extent.kind == ExtentKind::Data);
        let runs = data.map(move |extent| {
            let data = before..before + extent.len;
            before = data.end;
            let (start, end) = (from.max(data.start), (from + len).min(data.end));
            (extent.start + start.saturating_sub(data.start), end.saturating_sub(start))
        });
        runs.filter(|&(_, len)| len > 0)
    }

    /// Whether the file has no holes.
    #[must_use]
    pub fn is_solid(&self) -> bool {
        self.lengths.len() < 2
    }

    /// The extents in order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        let kinds = [ExtentKind::Data, ExtentKind::Hole].into_iter().cycle();
        let extents = self.lengths.iter().zip(kinds).scan(0, |next, (&len, kind)| {
            let start = *next;
            *next += len;
            Some(Extent { kind, start, len })
        });
        extents.filter(|extent| extent.len > 0)
    }
}
