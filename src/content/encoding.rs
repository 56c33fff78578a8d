//! Manifests as deterministic CBOR (RFC 8949, section 4.2):
//!
//! ```text
//! manifest = [version: 1, * entry]
//! entry    = {0: path bytes, 1: kind (1 file), 2: size, 3: mode, 4: [seconds, nanoseconds],
//!             ? 5: [2* length]                  lengths of data, hole, data, ...; absent without holes
//!             * -1 - n: bytes}                  optional fields: kept, and not understood
//! ```
//!
//! An unknown key that is not negative is refused. Longer spellings of numbers, indefinite lengths and keys out
//! of order decode here; [`super::Manifest::decode`] encodes anew and compares, so that none of them passes.

use super::entry::{Entry, EntryError, Modified, OptionalField};
use super::extents::Extents;
use super::{MANIFEST_VERSION, ManifestError};
use crate::limits::MAX_OBJECT_SIZE;
use minicbor::decode::{Decoder, Error};
use minicbor::encode::{self, Encoder};
use std::convert::Infallible;

/// The kind of a regular file.
const FILE: u8 = 1;
/// Number of mandatory fields of an entry.
const FIXED: u64 = 5;

/// Encodes entries.
pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    // Writing to memory cannot fail.
    let _ = encode_all(&mut encoder, entries);
    encoder.into_writer()
}

fn encode_all(to: &mut Encoder<Vec<u8>>, entries: &[Entry]) -> Result<(), encode::Error<Infallible>> {
    to.array(1 + entries.len() as u64)?.u8(MANIFEST_VERSION)?;
    entries.iter().try_for_each(|entry| encode_entry(to, entry))
}

fn encode_entry(to: &mut Encoder<Vec<u8>>, entry: &Entry) -> Result<(), encode::Error<Infallible>> {
    let holes = !entry.extents().is_solid();
    to.map(FIXED + u64::from(holes) + entry.optional().len() as u64)?;
    to.u8(0)?.bytes(entry.path())?;
    to.u8(1)?.u8(FILE)?;
    to.u8(2)?.u64(entry.size())?;
    to.u8(3)?.u16(entry.mode())?;
    to.u8(4)?.array(2)?.i64(entry.modified().seconds)?.u32(entry.modified().nanoseconds)?;
    if holes {
        to.u8(5)?.array(entry.extents().lengths().len() as u64)?;
        for &length in entry.extents().lengths() {
            to.u64(length)?;
        }
    }
    for field in entry.optional() {
        to.i32(-1 - i32::from(field.number))?.bytes(&field.value)?;
    }
    Ok(())
}

/// Decodes entries from any valid encoding, canonical or not.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    let mut from = Decoder::new(bytes);
    let count = from.array().map_err(malformed)?.ok_or(UNKNOWN_LENGTH)?;
    match from.u64().map_err(malformed)? {
        version if version == u64::from(MANIFEST_VERSION) => {}
        version => return Err(ManifestError::Version(version)),
    }
    let mut entries = Vec::new();
    // Memory is not reserved for the count, which may be false.
    for _ in 1..count {
        entries.push(decode_entry(&mut from)?);
    }
    if from.position() != bytes.len() {
        return Err(ManifestError::Malformed("bytes behind its end"));
    }
    Ok(entries)
}

const UNKNOWN_LENGTH: ManifestError = ManifestError::Malformed("a list of unknown length");
const INCOMPLETE: ManifestError = ManifestError::Malformed("an entry lacks a field");

fn malformed(error: Error) -> ManifestError {
    ManifestError::Malformed(if error.is_end_of_input() {
        "it is cut off"
    } else {
        "a field of another type"
    })
}

fn decode_entry(from: &mut Decoder<'_>) -> Result<Entry, ManifestError> {
    let fields = from.map().map_err(malformed)?.ok_or(UNKNOWN_LENGTH)?;
    let (mut path, mut size, mut mode, mut modified, mut lengths) = (None, None, None, None, None);
    let mut is_file = false;
    let mut optional = Vec::new();
    for _ in 0..fields {
        match from.i64().map_err(malformed)? {
            0 => path = Some(from.bytes().map_err(malformed)?),
            1 => match from.u64().map_err(malformed)? {
                kind if kind == u64::from(FILE) => is_file = true,
                _ => return Err(ManifestError::Malformed("an entry of a kind that is not known")),
            },
            2 => size = Some(from.u64().map_err(malformed)?),
            3 => mode = Some(u16::try_from(from.u64().map_err(malformed)?).map_err(|_| EntryError::Mode)?),
            4 => modified = Some(decode_time(from)?),
            5 => lengths = Some(decode_lengths(from)?),
            key @ ..0 => {
                let number = u16::try_from(-1 - key).map_err(|_| EntryError::Fields)?;
                let value = from.bytes().map_err(malformed)?.to_owned();
                optional.push(OptionalField { number, value });
            }
            _ => return Err(ManifestError::Malformed("an entry has a field that is not known")),
        }
    }
    if !is_file {
        return Err(INCOMPLETE);
    }
    let size = size.ok_or(INCOMPLETE)?;
    if size > MAX_OBJECT_SIZE {
        return Err(EntryError::Size.into());
    }
    let extents = lengths.map_or_else(|| Ok(Extents::solid(size)), Extents::from_lengths)?;
    if extents.size() != size {
        return Err(ManifestError::Malformed("extents that do not add up to the size"));
    }
    let path = path.ok_or(INCOMPLETE)?;
    let entry = Entry::file(path, mode.ok_or(INCOMPLETE)?, modified.ok_or(INCOMPLETE)?, extents)?;
    Ok(entry.with_optional(optional)?)
}

fn decode_time(from: &mut Decoder<'_>) -> Result<Modified, ManifestError> {
    if from.array().map_err(malformed)? != Some(2) {
        return Err(ManifestError::Malformed("a time of another form"));
    }
    let seconds = from.i64().map_err(malformed)?;
    let nanoseconds = from.u64().map_err(malformed)?;
    Ok(Modified { seconds, nanoseconds: u32::try_from(nanoseconds).map_err(|_| EntryError::Time)? })
}

fn decode_lengths(from: &mut Decoder<'_>) -> Result<Vec<u64>, ManifestError> {
    let count = from.array().map_err(malformed)?.ok_or(UNKNOWN_LENGTH)?;
    let mut lengths = Vec::new();
    for _ in 0..count {
        lengths.push(from.u64().map_err(malformed)?);
    }
    Ok(lengths)
}
