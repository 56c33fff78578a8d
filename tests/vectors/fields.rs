//! Messages as JSON, and back.

use data_encoding::HEXLOWER;
use mcp::units::{
    AgreementKey, BlockIndex, ChannelId, Coding, Cookie, Counter, DeviceId, DeviceKey, Digest, Esi, Rate,
    SenderKey, Suite, SymbolDigest, TaskId, Ticket,
};
use mcp::wire::{
    Abort, AbortCode, Acknowledge, Admit, AdmitVerdict, Announce, Arrivals, BlockEntry, Capabilities,
    Complete, Deficit, DeviceProof, HashPage, Holdings, Invitation, Join, Message, MessageKind, Nak, Object,
    ObjectKind, OriginProof, PacketNumber, PageRange, Phase, Poll, Progress, RepairAdvertisement, Retry,
    SinkEnd, Suspect, Symbol, SymbolDigests, TaskKind, Versions,
};
use serde_json::{Value, json};
use std::time::Duration;

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn invitation(invitation: Invitation) -> Value {
    json!({
        "probability": invitation.probability,
        "window_ms": invitation.window.as_millis() as u64,
    })
}

fn deficit(deficit: &Deficit) -> Value {
    match deficit {
        Deficit::Whole { first, count } => json!({ "form": 0, "first": first.0, "count": count }),
        Deficit::Symbols { block, symbols, missing } => {
            let form = if missing.is_empty() { 1 } else { 2 };
            json!({ "form": form, "block": block.0, "symbols": symbols, "missing": missing })
        }
        Deficit::Sources { block, missing } => json!({ "form": 3, "block": block.0, "missing": missing }),
    }
}

fn object(object: &Object) -> Value {
    json!({
        "kind": object.kind as u8,
        "block_size_log2": object.block_log2,
        "size": object.size,
        "sealed": object.sealed,
        "root": object.root.map(|root| hex(&root.0)),
    })
}

fn announce(a: &Announce) -> Value {
    json!({
        "versions": [a.versions.min, a.versions.max],
        "required": a.required.0,
        "optional": a.optional.0,
        "suite": a.suite.number(),
        "sender": hex(&a.sender.0),
        "agreement": hex(&a.agreement.0),
        "counter": a.counter.0,
        "task": hex(&a.task.0),
        "task_kind": a.task_kind.0,
        "phase": a.phase as u8,
        "symbol_size": a.symbol_size,
        "data": a.data.to_string(),
        "position": a.position.0,
        "invitation": invitation(a.invitation),
        "gsize": a.gsize,
        "rate": a.rate.0,
        "feedback_budget": a.feedback_budget,
        "objects": a.objects.iter().map(object).collect::<Vec<_>>(),
        "name": a.name,
        "manifest": hex(&a.manifest),
        "origin": a.origin.as_ref().map(|origin| json!({ "key": hex(&origin.key.0), "counter": origin.counter.0, "signature": hex(&origin.signature) })),
    })
}

/// What a message says.
pub fn fields(message: &Message<'_>) -> Value {
    match message {
        Message::Announce(a) => announce(a),
        Message::Join(j) => json!({
            "device": hex(&j.device.0),
            "versions": [j.versions.min, j.versions.max],
            "capabilities": j.supported.0,
            "holdings": match j.holdings {
                Holdings::Nothing => json!({ "form": 0 }),
                Holdings::Some => json!({ "form": 1 }),
                Holdings::All(root) => json!({ "form": 2, "root": hex(&root.0) }),
                Holdings::Passing => json!({ "form": 3 }),
            },
            "label": j.label,
            "ticket": j.ticket.map(|ticket| hex(&ticket.0)),
            "proof": j.proof.map(|proof| json!({ "key": hex(&proof.key.0), "signature": hex(&proof.signature) })),
        }),
        Message::Admit(a) => json!({
            "verdict": a.verdict as u8,
            "channel": a.channel.0,
            "version": a.version,
            "capabilities": a.capabilities.0,
            "ticket": a.ticket.map(|ticket| hex(&ticket.0)),
        }),
        Message::Symbol(s) => json!({ "block": s.block.0, "esi": s.esi.0, "payload": hex(s.payload) }),
        Message::HashPage(p) => json!({
            "first": p.first.0,
            "blocks": p.blocks.iter().map(|block| json!({
                "value": hex(&block.value.0),
                "coding": block.coding as u8,
                "coded_k": block.coded_k,
            })).collect::<Vec<_>>(),
        }),
        Message::Poll(p) => json!({
            "round": p.round,
            "position": p.position.0,
            "invitation": invitation(p.invitation),
            "gsize": p.gsize,
            "want_esis": p.want_esis,
            "advertised": p.advertised.iter().map(|a| (a.block.0, a.symbols)).collect::<Vec<_>>(),
        }),
        Message::Nak(n) => json!({
            "round": n.round,
            "largest_received": n.largest_received.0,
            "ack_delay_us": n.ack_delay_us,
            "incomplete": n.incomplete,
            "pages": n.pages.iter().map(|pages| (pages.first, pages.count)).collect::<Vec<_>>(),
            "deficits": n.deficits.iter().map(deficit).collect::<Vec<_>>(),
        }),
        Message::Progress(p) => json!({
            "verified": p.verified,
            "received": p.received,
            "lost": p.lost,
            "kernel_drops": p.kernel_drops,
            "overrun_drops": p.overrun_drops,
            "storage_delay_us": p.storage_delay_us,
            "room": p.room.0,
            "below": p.below.0,
            "ticket_kept": p.ticket_kept,
            "arrivals": p.arrivals.map(|a| json!({
                "first": a.first.0,
                "last": a.last.0,
                "received": a.received,
                "elapsed_us": a.elapsed_us,
                "last_at_us": a.last_at_us,
            })),
        }),
        Message::Complete(c) => json!({
            "root": hex(&c.root.0),
            "sink": c.sink as u8,
            "command": c.command,
            "hook": c.hook,
            "received": c.received,
            "lost": c.lost,
        }),
        Message::Acknowledge(_) => json!({}),
        Message::Abort(a) => json!({ "code": a.code as u8, "reason": a.reason }),
        Message::Retry(r) => json!({ "agreement": hex(&r.agreement.0), "cookie": hex(&r.cookie.0) }),
        Message::Suspect(s) => json!({ "blocks": s.blocks.iter().map(|block| block.0).collect::<Vec<_>>() }),
        Message::SymbolDigests(d) => json!({
            "block": d.block.0,
            "first": d.first_esi.0,
            "digests": d.digests.iter().map(|digest| hex(&digest.0)).collect::<Vec<_>>(),
        }),
    }
}

/// A field of an object.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn at(&self, name: &str) -> Fields<'a> {
        Fields(&self.0[name])
    }
    fn int<T: TryFrom<u64>>(&self, name: &str) -> T {
        self.at(name).number()
    }
    fn number<T: TryFrom<u64>>(&self) -> T {
        let number = self.0.as_u64().unwrap_or_else(|| panic!("{} is no number", self.0));
        T::try_from(number).unwrap_or_else(|_| panic!("{number} is too large"))
    }
    fn text(&self, name: &str) -> &'a str {
        self.0[name].as_str().expect("a text")
    }
    fn bytes(&self, name: &str) -> Vec<u8> {
        HEXLOWER.decode(self.text(name).as_bytes()).expect("hex")
    }
    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().expect("its length")
    }
    fn flag(&self, name: &str) -> bool {
        self.0[name].as_bool().expect("a flag")
    }
    fn block(&self, name: &str) -> BlockIndex {
        BlockIndex(self.int(name))
    }
    fn option(&self, name: &str) -> Option<Fields<'a>> {
        Some(self.at(name)).filter(|field| !field.0.is_null())
    }
    fn list<T>(&self, name: &str, of: impl FnMut(Fields<'a>) -> T) -> Vec<T> {
        self.0[name].as_array().expect("a list").iter().map(Fields).map(of).collect()
    }
    fn versions(&self) -> Versions {
        let ends: Vec<u8> = self.list("versions", |end| end.number());
        Versions { min: ends[0], max: ends[1] }
    }
    fn invitation(&self) -> Invitation {
        let invitation = self.at("invitation");
        let window = Duration::from_millis(invitation.int("window_ms"));
        Invitation { probability: invitation.int("probability"), window }
    }
    fn pair<A: TryFrom<u64>, B: TryFrom<u64>>(&self) -> (A, B) {
        (Fields(&self.0[0]).number(), Fields(&self.0[1]).number())
    }
    fn ticket(&self) -> Option<Ticket> {
        self.option("ticket").map(|_| Ticket(self.array("ticket")))
    }
    /// One of those whose place in the list is its number.
    fn of<T: Copy>(&self, name: &str, all: &[T]) -> T {
        all[self.int::<usize>(name)]
    }
}

fn deficit_of(f: &Fields<'_>) -> Deficit {
    let missing = || f.list("missing", |run| run.pair());
    match f.int::<u8>("form") {
        0 => Deficit::Whole { first: f.block("first"), count: f.int("count") },
        3 => Deficit::Sources { block: f.block("block"), missing: missing() },
        _ => Deficit::Symbols { block: f.block("block"), symbols: f.int("symbols"), missing: missing() },
    }
}

fn object_of(f: &Fields<'_>) -> Object {
    use ObjectKind::{Device, File, Manifest, Stream, Tree};
    Object {
        kind: f.of("kind", &[Manifest, File, Tree, Device, Stream]),
        block_log2: f.int("block_size_log2"),
        size: f.int("size"),
        sealed: f.flag("sealed"),
        root: f.option("root").map(|_| Digest(f.array("root"))),
    }
}

fn announce_of(f: &Fields<'_>) -> Announce {
    Announce {
        versions: f.versions(),
        required: Capabilities(f.int("required")),
        optional: Capabilities(f.int("optional")),
        suite: Suite::from_number(f.int("suite")).expect("a suite"),
        sender: SenderKey(f.array("sender")),
        agreement: AgreementKey(f.array("agreement")),
        counter: Counter(f.int("counter")),
        task: TaskId(f.array("task")),
        task_kind: TaskKind(f.int("task_kind")),
        phase: f.of("phase", &[Phase::Gathering, Phase::Streaming, Phase::Repairing, Phase::Lingering]),
        symbol_size: f.int("symbol_size"),
        data: f.text("data").parse().expect("an address"),
        position: f.block("position"),
        invitation: f.invitation(),
        gsize: f.int("gsize"),
        rate: Rate(f.int("rate")),
        feedback_budget: f.int("feedback_budget"),
        objects: f.list("objects", |object| object_of(&object)),
        name: f.text("name").into(),
        manifest: f.bytes("manifest"),
        one_way: None,
        origin: f.option("origin").map(|origin| {
            Box::new(OriginProof {
                key: SenderKey(origin.array("key")),
                counter: Counter(origin.int("counter")),
                signature: origin.array("signature"),
            })
        }),
    }
}

/// The message that says this.
pub fn message(kind: MessageKind, fields: &Value) -> Message<'static> {
    let f = Fields(fields);
    match kind {
        MessageKind::Announce => announce_of(&f).into(),
        MessageKind::Join => Join {
            device: DeviceId(f.array("device")),
            versions: f.versions(),
            supported: Capabilities(f.int("capabilities")),
            holdings: match f.at("holdings").int::<u8>("form") {
                0 => Holdings::Nothing,
                1 => Holdings::Some,
                _ => Holdings::All(Digest(f.at("holdings").array("root"))),
            },
            label: f.text("label").into(),
            ticket: f.ticket(),
            proof: f.option("proof").map(|proof| DeviceProof {
                key: DeviceKey(proof.array("key")),
                signature: proof.array("signature"),
            }),
        }
        .into(),
        MessageKind::Admit => {
            use AdmitVerdict::{Admitted, AlreadyComplete, Full, NotListed, TooLate, Unsupported};
            Admit {
                verdict: f.of("verdict", &[Admitted, AlreadyComplete, Full, Unsupported, NotListed, TooLate]),
                channel: ChannelId(f.int("channel")),
                version: f.int("version"),
                capabilities: Capabilities(f.int("capabilities")),
                ticket: f.ticket(),
            }
            .into()
        }
        MessageKind::Symbol => {
            let payload = f.bytes("payload").leak();
            Symbol { block: f.block("block"), esi: Esi(f.int("esi")), payload }.into()
        }
        MessageKind::HashPage => HashPage {
            first: f.block("first"),
            blocks: f.list("blocks", |block| BlockEntry {
                value: Digest(block.array("value")),
                coding: block.of("coding", &[Coding::Raw, Coding::Short, Coding::Zero, Coding::Zstd]),
                coded_k: block.int("coded_k"),
            }),
        }
        .into(),
        MessageKind::Poll => Poll {
            round: f.int("round"),
            position: f.block("position"),
            invitation: f.invitation(),
            gsize: f.int("gsize"),
            want_esis: f.flag("want_esis"),
            advertised: f.list("advertised", |one| {
                let (block, symbols) = one.pair();
                RepairAdvertisement { block: BlockIndex(block), symbols }
            }),
        }
        .into(),
        MessageKind::Nak => Nak {
            round: f.int("round"),
            largest_received: PacketNumber(f.int("largest_received")),
            ack_delay_us: f.int("ack_delay_us"),
            incomplete: f.int("incomplete"),
            pages: f.list("pages", |pages| {
                let (first, count) = pages.pair();
                PageRange { first, count }
            }),
            deficits: f.list("deficits", |deficit| deficit_of(&deficit)),
        }
        .into(),
        MessageKind::Progress => Progress {
            verified: f.int("verified"),
            received: f.int("received"),
            lost: f.int("lost"),
            kernel_drops: f.int("kernel_drops"),
            overrun_drops: f.int("overrun_drops"),
            storage_delay_us: f.int("storage_delay_us"),
            room: f.block("room"),
            below: f.block("below"),
            ticket_kept: f.0["ticket_kept"].as_bool().expect("ticket_kept"),
            arrivals: f.option("arrivals").map(|a| Arrivals {
                first: PacketNumber(a.int("first")),
                last: PacketNumber(a.int("last")),
                received: a.int("received"),
                elapsed_us: a.int("elapsed_us"),
                last_at_us: a.int("last_at_us"),
            }),
        }
        .into(),
        MessageKind::Complete => {
            let status = |name: &str| f.0[name].as_i64().map(|status| status as i32);
            Complete {
                root: Digest(f.array("root")),
                sink: f.of("sink", &[SinkEnd::Named, SinkEnd::InPlace, SinkEnd::Piped]),
                command: status("command"),
                hook: status("hook"),
                received: f.int("received"),
                lost: f.int("lost"),
            }
            .into()
        }
        MessageKind::Acknowledge => Acknowledge.into(),
        MessageKind::Abort => {
            use AbortCode::{Disk, Finished, Internal, Interrupted, Mismatch, Name, Source};
            let codes = [Finished, Interrupted, Source, Disk, Name, Mismatch, Internal];
            Abort { code: f.of("code", &codes), reason: f.text("reason").into() }.into()
        }
        MessageKind::Retry => {
            Retry { agreement: AgreementKey(f.array("agreement")), cookie: Cookie(f.array("cookie")) }.into()
        }
        MessageKind::Suspect => {
            Suspect { blocks: f.list("blocks", |block| BlockIndex(block.number())) }.into()
        }
        MessageKind::SymbolDigests => SymbolDigests {
            block: f.block("block"),
            first_esi: Esi(f.int("first")),
            digests: f.list("digests", |digest| {
                let bytes = HEXLOWER.decode(digest.0.as_str().expect("a text").as_bytes()).expect("hex");
                SymbolDigest(bytes.try_into().expect("its length"))
            }),
        }
        .into(),
    }
}
