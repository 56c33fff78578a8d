//! Manifests as deterministic CBOR (RFC 8949, section 4.2):
//!
//! ```text
//! manifest = [version: 1, * entry]
//! entry    = {0: path bytes, 1: kind, the fields of the kind,
//!             ? 9: [user, group]                owner
//!             ? 10: [+ [name, value]]           extended attributes, by name; as bytes
//!             * -1 - n: bytes}                  optional fields: kept, and not understood
//! kind 1   file        2: size, 3: mode, 4: [seconds, nanoseconds],
//!                      ? 5: [2* length]         lengths of data, hole, data, ...; absent without holes
//! kind 2   directory   3: mode, 4: time
//! kind 3   symlink     4: time, 6: target bytes
//! kind 4   hard link   7: number of an earlier entry, which is a file
//! kind 5   character device, kind 6 block device
//!                      3: mode, 4: time, 8: [major, minor]
//! ```
//!
//! An unknown key that is not negative is refused. Longer spellings of numbers, indefinite lengths, keys out
//! of order and fields of another kind decode here; [`super::Manifest::decode`] encodes anew and compares, so that none
//! of them passes.

use super::entry::{Entry, EntryError, EntryKind, Modified, OptionalField, Owner, Xattr};
use super::extents::Extents;
use super::{MANIFEST_VERSION, ManifestError};
use crate::limits::{MAX_OBJECT_SIZE, MAX_TREE_ENTRIES};
use minicbor::decode::{Decoder, Error};
use minicbor::encode::{self, Encoder};
use std::convert::Infallible;

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;
const HARD_LINK: u8 = 4;
const CHARACTER_DEVICE: u8 = 5;
const BLOCK_DEVICE: u8 = 6;

/// Encodes entries.
pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    // Writing to memory cannot fail.
    let _ = encode_all(&mut encoder, entries);
    encoder.into_writer()
}

type Encoded = Result<(), encode::Error<Infallible>>;

fn encode_all(to: &mut Encoder<Vec<u8>>, entries: &[Entry]) -> Encoded {
    to.array(1 + entries.len() as u64)?.u8(MANIFEST_VERSION)?;
    entries.iter().try_for_each(|entry| encode_entry(to, entry))
}

fn encode_entry(to: &mut Encoder<Vec<u8>>, entry: &Entry) -> Encoded {
    let (kind, fields) = match entry.kind() {
        EntryKind::File(extents) => (FILE, 3 + u64::from(!extents.is_solid())),
        EntryKind::Directory => (DIRECTORY, 2),
        EntryKind::Symlink(_) => (SYMLINK, 2),
        EntryKind::HardLink(_) => (HARD_LINK, 1),
        EntryKind::Device { block: false, .. } => (CHARACTER_DEVICE, 3),
        EntryKind::Device { block: true, .. } => (BLOCK_DEVICE, 3),
    };
    let more = u64::from(entry.owner().is_some()) + u64::from(!entry.xattrs().is_empty());
    to.map(2 + fields + more + entry.optional().len() as u64)?;
    to.u8(0)?.bytes(entry.path())?.u8(1)?.u8(kind)?;
    match entry.kind() {
        EntryKind::File(extents) => {
            to.u8(2)?.u64(extents.size())?;
            encode_mode(to, entry)?;
            encode_time(to, entry)?;
            if !extents.is_solid() {
                to.u8(5)?.array(extents.lengths().len() as u64)?;
                extents.lengths().iter().try_for_each(|&length| to.u64(length).map(drop))?;
            }
        }
        EntryKind::Directory => {
            encode_mode(to, entry)?;
            encode_time(to, entry)?;
        }
        EntryKind::Symlink(target) => {
            encode_time(to, entry)?;
            to.u8(6)?.bytes(target)?;
        }
        EntryKind::HardLink(number) => {
            to.u8(7)?.u32(*number)?;
        }
        EntryKind::Device { major, minor, .. } => {
            encode_mode(to, entry)?;
            encode_time(to, entry)?;
            to.u8(8)?.array(2)?.u32(*major)?.u32(*minor)?;
        }
    }
    if let Some(Owner { user, group }) = entry.owner() {
        to.u8(9)?.array(2)?.u32(user)?.u32(group)?;
    }
    if !entry.xattrs().is_empty() {
        to.u8(10)?.array(entry.xattrs().len() as u64)?;
        for Xattr { name, value } in entry.xattrs() {
            to.array(2)?.bytes(name)?.bytes(value)?;
        }
    }
    for field in entry.optional() {
        to.i32(-1 - i32::from(field.number))?.bytes(&field.value)?;
    }
    Ok(())
}

fn encode_mode(to: &mut Encoder<Vec<u8>>, entry: &Entry) -> Encoded {
    to.u8(3)?.u16(entry.mode()).map(drop)
}

fn encode_time(to: &mut Encoder<Vec<u8>>, entry: &Entry) -> Encoded {
    let Modified { seconds, nanoseconds } = entry.modified();
    to.u8(4)?.array(2)?.i64(seconds)?.u32(nanoseconds).map(drop)
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
        if entries.len() >= MAX_TREE_ENTRIES {
            return Err(ManifestError::TooMany);
        }
        entries.push(decode_entry(&mut from)?);
    }
    if from.position() != bytes.len() {
        return Err(ManifestError::Malformed("bytes behind its end"));
    }
    Ok(entries)
}

const UNKNOWN_LENGTH: ManifestError = ManifestError::Malformed("a list of unknown length");
const INCOMPLETE: ManifestError = ManifestError::Malformed("an entry lacks a field");
const ANOTHER_FORM: ManifestError = ManifestError::Malformed("a list of another form");

pub(super) fn malformed(error: Error) -> ManifestError {
    ManifestError::Malformed(if error.is_end_of_input() {
        "it is cut off"
    } else {
        "a field of another type"
    })
}

/// The fields of an entry as they come. Those that do not belong to its kind are dropped, and so the entry encodes to
/// something else.
#[derive(Default)]
struct Fields<'a> {
    path: Option<&'a [u8]>,
    kind: Option<u64>,
    size: Option<u64>,
    mode: Option<u16>,
    modified: Option<Modified>,
    lengths: Option<Vec<u64>>,
    target: Option<&'a [u8]>,
    number: Option<u32>,
    device: Option<(u32, u32)>,
    owner: Option<Owner>,
    xattrs: Vec<Xattr>,
    optional: Vec<OptionalField>,
}

fn decode_entry(from: &mut Decoder<'_>) -> Result<Entry, ManifestError> {
    let count = from.map().map_err(malformed)?.ok_or(UNKNOWN_LENGTH)?;
    let mut fields = Fields::default();
    for _ in 0..count {
        decode_field(from, &mut fields)?;
    }
    let kind = match fields.kind.and_then(|kind| u8::try_from(kind).ok()) {
        Some(FILE) => EntryKind::File(extents(fields.size.ok_or(INCOMPLETE)?, fields.lengths)?),
        Some(DIRECTORY) => EntryKind::Directory,
        Some(SYMLINK) => EntryKind::Symlink(fields.target.ok_or(INCOMPLETE)?.to_owned()),
        Some(HARD_LINK) => EntryKind::HardLink(fields.number.ok_or(INCOMPLETE)?),
        Some(kind @ (CHARACTER_DEVICE | BLOCK_DEVICE)) => {
            let (major, minor) = fields.device.ok_or(INCOMPLETE)?;
            EntryKind::Device { block: kind == BLOCK_DEVICE, major, minor }
        }
        _ => return Err(ManifestError::Malformed("an entry of a kind that is not known")),
    };
    let (has_mode, has_time) = match kind {
        EntryKind::HardLink(_) => (false, false),
        EntryKind::Symlink(_) => (false, true),
        _ => (true, true),
    };
    let mode = if has_mode { fields.mode.ok_or(INCOMPLETE)? } else { 0 };
    let modified = if has_time { fields.modified.ok_or(INCOMPLETE)? } else { Modified::default() };
    let entry = Entry::new(fields.path.ok_or(INCOMPLETE)?, kind, mode, modified)?;
    Ok(entry.with_owner(fields.owner).with_xattrs(fields.xattrs)?.with_optional(fields.optional)?)
}

fn decode_field<'a>(from: &mut Decoder<'a>, fields: &mut Fields<'a>) -> Result<(), ManifestError> {
    match from.i64().map_err(malformed)? {
        0 => fields.path = Some(from.bytes().map_err(malformed)?),
        1 => fields.kind = Some(from.u64().map_err(malformed)?),
        2 => fields.size = Some(from.u64().map_err(malformed)?),
        3 => {
            let mode = u16::try_from(from.u64().map_err(malformed)?);
            fields.mode = Some(mode.map_err(|_| EntryError::Mode)?);
        }
        4 => fields.modified = Some(decode_time(from)?),
        5 => fields.lengths = Some(decode_lengths(from)?),
        6 => fields.target = Some(from.bytes().map_err(malformed)?),
        7 => fields.number = Some(from.u32().map_err(malformed)?),
        8 => fields.device = Some(decode_pair(from)?),
        9 => {
            let (user, group) = decode_pair(from)?;
            fields.owner = Some(Owner { user, group });
        }
        10 => fields.xattrs = decode_xattrs(from)?,
        key @ ..0 => {
            let number = u16::try_from(-1 - key).map_err(|_| EntryError::Fields)?;
            let value = from.bytes().map_err(malformed)?.to_owned();
            fields.optional.push(OptionalField { number, value });
        }
        _ => return Err(ManifestError::Malformed("an entry has a field that is not known")),
    }
    Ok(())
}

fn extents(size: u64, lengths: Option<Vec<u64>>) -> Result<Extents, ManifestError> {
    if size > MAX_OBJECT_SIZE {
        return Err(EntryError::Size.into());
    }
    let extents = lengths.map_or_else(|| Ok(Extents::solid(size)), Extents::from_lengths)?;
    if extents.size() != size {
        return Err(ManifestError::Malformed("extents that do not add up to the size"));
    }
    Ok(extents)
}

fn decode_time(from: &mut Decoder<'_>) -> Result<Modified, ManifestError> {
    if from.array().map_err(malformed)? != Some(2) {
        return Err(ManifestError::Malformed("a time of another form"));
    }
    let seconds = from.i64().map_err(malformed)?;
    let nanoseconds = from.u64().map_err(malformed)?;
    Ok(Modified { seconds, nanoseconds: u32::try_from(nanoseconds).map_err(|_| EntryError::Time)? })
}

fn decode_pair(from: &mut Decoder<'_>) -> Result<(u32, u32), ManifestError> {
    if from.array().map_err(malformed)? != Some(2) {
        return Err(ANOTHER_FORM);
    }
    Ok((from.u32().map_err(malformed)?, from.u32().map_err(malformed)?))
}

fn decode_lengths(from: &mut Decoder<'_>) -> Result<Vec<u64>, ManifestError> {
    let count = from.array().map_err(malformed)?.ok_or(UNKNOWN_LENGTH)?;
    let mut lengths = Vec::new();
    for _ in 0..count {
        lengths.push(from.u64().map_err(malformed)?);
    }
    Ok(lengths)
}

fn decode_xattrs(from: &mut Decoder<'_>) -> Result<Vec<Xattr>, ManifestError> {
    let count = from.array().map_err(malformed)?.ok_or(UNKNOWN_LENGTH)?;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        if from.array().map_err(malformed)? != Some(2) {
            return Err(ANOTHER_FORM);
        }
        let name = from.bytes().map_err(malformed)?.to_owned();
        xattrs.push(Xattr { name, value: from.bytes().map_err(malformed)?.to_owned() });
    }
    Ok(xattrs)
}
