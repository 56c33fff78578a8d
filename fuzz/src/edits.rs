//! Damage to something sound: four bytes an edit.

/// Flips bits, cuts, puts bytes in, takes bytes out, as `edits` says.
pub fn edit(bytes: &mut Vec<u8>, edits: &[u8]) {
    let (edits, _) = edits.as_chunks();
    for &[how, high, low, value] in edits {
        let at = usize::from(u16::from_be_bytes([high, low])) % (bytes.len() + 1);
        match how & 3 {
            0 if at < bytes.len() => bytes[at] ^= value,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, value),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {}
        }
    }
}
