//! Messages with every field set, for the tests of the wire's bytes.

use mcp::units::{BlockIndex, ChannelId, DeviceId, Digest, Esi, SymbolDigest, Ticket};
use mcp::wire::{
    Admit, AdmitVerdict, Arrivals, Capabilities, Complete, Holdings, Join, PacketNumber, Progress, SinkEnd,
    SymbolDigests, Versions,
};

/// A join of a device that already holds the object with this root.
pub fn join(device: DeviceId, root: Digest) -> Join {
    Join {
        device,
        versions: Versions { min: 1, max: 1 },
        supported: Capabilities::CODED_BLOCKS,
        holdings: Holdings::All(root),
        label: "lab-07".into(),
        ticket: Some(Ticket([0x58; 16])),
        proof: None,
    }
}

/// An admission on channel 7.
pub fn admit() -> Admit {
    Admit {
        verdict: AdmitVerdict::Admitted,
        channel: ChannelId(7),
        version: 1,
        capabilities: Capabilities::CODED_BLOCKS,
        ticket: Some(Ticket([0x58; 16])),
    }
}

/// A report with arrivals on the group's channel.
pub fn progress() -> Progress {
    Progress {
        verified: 1,
        received: 3000,
        lost: 30,
        kernel_drops: 2,
        overrun_drops: 1,
        storage_delay_us: 1_500,
        room: BlockIndex(64),
        below: BlockIndex(1),
        ticket_kept: true,
        arrivals: Some(Arrivals {
            first: PacketNumber::new(ChannelId::GROUP, 40),
            last: PacketNumber::new(ChannelId::GROUP, 140),
            received: 99,
            elapsed_us: 25_000,
            last_at_us: 3_000_000,
        }),
    }
}

/// A receipt of an object that went through a pipe, with the exit codes of a command and a hook.
pub fn complete(root: Digest) -> Complete {
    Complete { sink: SinkEnd::Piped, command: Some(0), hook: Some(-1), ..Complete::named(root, 3700, 37) }
}

/// The digests of three source symbols.
pub fn symbol_digests() -> SymbolDigests {
    SymbolDigests { block: BlockIndex(3), first_esi: Esi(64), digests: vec![SymbolDigest([0x55; 16]); 3] }
}
