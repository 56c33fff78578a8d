//! What the head of an image says about the disk that it was made for.

use crate::text::bytes;

/// Sector sizes in use. The header of a GPT is in the second sector.
const SECTORS: [u64; 2] = [512, 4096];
const GPT: &[u8; 8] = b"EFI PART";

/// A remark on an image with this head, on a disk of `size` bytes with these sectors.
pub(super) fn remark(head: &[u8], size: u64, sector: u64, device: &str) -> Option<String> {
    let header = |sector: u64| head.get(sector as usize..sector as usize + 92);
    let of = SECTORS.into_iter().find(|&sector| header(sector).is_some_and(|h| h.starts_with(GPT)))?;
    if of != sector {
        return Some(format!(
            "the partition table on {device} is for sectors of {of} bytes, and the disk has sectors of {sector}: no \
             system will find its partitions"
        ));
    }
    // The header says where its copy is: in the last sector of the disk that it was made for.
    let copy = header(of).and_then(|h| h[32..40].try_into().ok()).map_or(0, u64::from_le_bytes);
    let made_for = copy.saturating_add(1).saturating_mul(of);
    (made_for < size).then(|| {
        format!(
            "{device} has {} and its partition table is for {}; 'sgdisk -e {device}' moves the table's copy to the end",
            bytes(size),
            bytes(made_for)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_table_that_does_not_fit_the_disk_is_remarked_on() {
        let head = |sector: usize, last: u64| {
            let mut head = vec![0; 1 << 20];
            head[sector..sector + 8].copy_from_slice(GPT);
            head[sector + 32..sector + 40].copy_from_slice(&last.to_le_bytes());
            head
        };
        let said = |head: &[u8], size, sector| remark(head, size, sector, "/dev/x").unwrap_or_default();
        // Made for 64 MiB in sectors of 512 bytes.
        let small = head(512, (64 << 20) / 512 - 1);
        assert_eq!(said(&small, 64 << 20, 512), "");
        assert!(said(&small, 65 << 20, 512).contains("sgdisk -e /dev/x"));
        assert!(
            said(&small, 64 << 20, 4096)
                .contains("for sectors of 512 bytes, and the disk has sectors of 4096")
        );
        let large = head(4096, (64 << 20) / 4096 - 1);
        assert_eq!(said(&large, 64 << 20, 4096), "");
        assert!(said(&large, 64 << 20, 512).contains("no system will find"));
        for head in [&[][..], &[0; 600], &vec![0; 1 << 20], &head(512, u64::MAX)] {
            assert_eq!(said(head, 1 << 40, 512), "");
        }
    }
}
