//! Every bound of this crate: what a peer can make the server or the agent read, keep or wait for. Relations between
//! bounds are asserted at compile time.

use std::time::Duration;

// --- Documents -------------------------------------------------------------------------------------------------

/// Bytes of an envelope as text, signatures included.
pub const MAX_ENVELOPE: usize = 64 << 10;
/// Signatures in an envelope.
pub const MAX_SIGNATURES: usize = 16;
/// Keys of one role.
pub const MAX_ROLE_KEYS: usize = MAX_SIGNATURES;
/// Objects of a task.
pub const MAX_OBJECTS: usize = 1024;
/// Bytes of one object: 1 PiB.
pub const MAX_OBJECT_SIZE: u64 = 1 << 50;
/// Roots that a device walks in one go, from the one it trusts to the newest.
pub const MAX_ROOT_STEPS: u64 = 64;
/// Bytes of a name: of a task, a device, a handler, an argument, an attribute; and of an attribute's value (hawkBit's bound).
pub const MAX_NAME: usize = 128;
/// Bytes of a file name in a directory (`NAME_MAX` of Linux).
pub const MAX_FILENAME: usize = 255;
/// Bytes of a destination path.
pub const MAX_PATH: usize = 1024;
/// Arguments of a task for its handler.
pub const MAX_ARGUMENTS: usize = 64;
/// Bytes of one argument.
pub const MAX_ARGUMENT: usize = 4096;
/// Conditions of a task, on the attributes of a device.
pub const MAX_TERMS: usize = 32;
/// Patterns of device names in a task.
pub const MAX_PATTERNS: usize = 512;
/// Tasks that a task waits for, and keys of senders that it allows.
pub const MAX_REFERENCES: usize = 16;
/// Tasks that a list names.
pub const MAX_LISTED: usize = 256;
/// Bytes of a nonce.
pub const MAX_NONCE: usize = 32;
/// Names of tasks that a device remembers, to refuse older ones.
pub const MAX_REMEMBERED: usize = 1024;
/// Bytes of an enrolment line's token, and of its URL.
pub const MAX_TOKEN: usize = 128;
/// Bytes of a URL.
pub const MAX_URL: usize = 512;

const _: () = assert!(MAX_LISTED <= MAX_REMEMBERED, "a device remembers all that a list can name");
// An entry takes at most a name, 20 digits, 64 digits of hash and 40 of syntax; base64 takes 4/3 of that.
const _: () = assert!(
    MAX_LISTED * (20 + 64 + 40) * 4 / 3 < MAX_ENVELOPE,
    "a full list of short names fits an envelope"
);

// The agent, towards servers and mirrors

/// Redirects that are followed one after the other.
pub const MAX_REDIRECTS: usize = 5;
/// Shortest time that `Retry-After` can ask for.
pub const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest time that `Retry-After` can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Longest pause before a source that failed is asked again.
pub const MAX_SOURCE_PAUSE: Duration = Duration::from_secs(600);
/// Bytes of a list of chaining values: objects up to 1 TiB.
pub const MAX_VALUES: u64 = 32 << 20;
/// Bytes of a list or root as a server answers it.
pub const MAX_DOCUMENT: usize = MAX_ENVELOPE;
/// Bytes of the smallest object that is worth a multicast session: smaller ones take one answer of HTTP.
pub const MIN_SESSION_OBJECT: u64 = 1 << 20;
/// Bytes that the start of one more session counts as, beside what it sends: announcements, joins, and the time of the devices.
pub const SESSION_START: u64 = 1 << 20;
/// Ranges in what a device says it lacks of an object.
pub const MAX_LACKING: usize = 1024;
/// Longest time that a device waits for its turn in a multicast session, however often it is told to ask again.
pub const MAX_SESSION_QUEUE: Duration = Duration::from_secs(24 * 3600);
/// How long a device that could load from a mirror asks a server that does not answer for a session.
pub const SESSION_PATIENCE: Duration = Duration::from_secs(60);
/// Longest time that a device waits for a multicast session to begin.
pub const MAX_SESSION_WAIT: Duration = Duration::from_secs(3600);
/// Mirrors of one object that are taken from a server's hint.
pub const MAX_MIRRORS: usize = 8;
/// Neighbours that a device is sent to for an object.
pub const MAX_NEIGHBOURS: usize = 3;
/// Neighbours, those heard of last, of which these are drawn.
pub const MAX_DRAWN: usize = 16;
/// Devices that the server knows to serve others.
pub const MAX_SERVING: usize = 16_384;
/// Objects that one device offers to its neighbours.
pub const MAX_SHARED: usize = 64;
/// Bytes of the smallest object that is loaded from neighbours: to ask for them costs about as much as smaller ones.
pub const MIN_SHARED: u64 = 1 << 20;
/// How long a key counts that a neighbour's tokens are made with, before and after it is replaced.
pub const TOKEN_KEY_LIFE: Duration = Duration::from_secs(3600);
/// Connections at once of neighbours, of which half may come from one address.
pub const MAX_NEIGHBOUR_CONNECTIONS: usize = 16;
/// Downloads of neighbours at once.
pub const MAX_NEIGHBOUR_DOWNLOADS: usize = 4;
/// Bytes a second below which a neighbour is left for the next source: far more than of mirrors, because nobody chose it.
pub const MIN_NEIGHBOUR_SPEED: u64 = 200_000;
/// Least bytes a second of all downloads of neighbours together.
pub const MIN_NEIGHBOUR_RATE: u64 = 1_000_000;
/// The longest silence of a neighbour, also before its answer.
pub const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(5);
/// Tasks that a device keeps, those that are over included.
pub const MAX_WORKS: usize = 256;
/// Refusals that a device shows, the newest.
pub const MAX_REFUSED: usize = 16;
/// How often a handler may ask to be tried again later, for one attempt.
pub const MAX_RETRIES: u32 = 10;
/// Lines of details in one feedback.
pub const MAX_FEEDBACK_LINES: usize = 20;
/// Bytes of one such line.
pub const MAX_FEEDBACK_LINE: usize = 400;

// --- DDI documents --------------------------------------------------------------------------------------------

/// Largest body of a feedback or of attributes that the server reads, in bytes.
pub const MAX_DDI_BODY: usize = 64 * 1024;
/// Largest DDI answer that an agent reads, in bytes: a deployment with a signed task in each of two carriers, and room.
pub const MAX_DDI_ANSWER: usize = 1024 * 1024;
/// Most characters that an error quotes of a document that cannot be read.
pub const MAX_QUOTED: usize = 80;
/// Most attributes of one device.
pub const MAX_ATTRIBUTES: usize = 100;
/// Most characters of a device's identifier (controllerId).
pub const MAX_CONTROLLER_ID: usize = 256;
/// Most characters of a value in a chunk's metadata.
pub const MAX_METADATA_VALUE: usize = 4000;
/// Most entries of a chunk's metadata.
pub const MAX_METADATA: usize = 50;
/// Most messages of one action in an answer, and the meaning of a negative `actionHistory`.
pub const MAX_HISTORY: usize = 100;
/// Most messages that are read from one feedback.
pub const MAX_DETAILS: usize = 50;
/// Most characters kept of one message of a feedback.
pub const MAX_DETAIL_TEXT: usize = 512;
/// Largest action identifier: clients keep it in a signed 32-bit integer.
pub const MAX_ACTION: i64 = i32::MAX as i64;

/// Shortest time between two polls that an agent obeys or a server asks for.
pub const MIN_SLEEP: Duration = Duration::from_secs(1);
/// Longest time between two polls that a server asks for: no client parses a day and more.
pub const MAX_SLEEP: Duration = Duration::from_secs(24 * 3600 - 1);

// An envelope in base64 fits into the metadata of one chunk, with half of the entries left for others.
const _: () = assert!(MAX_ENVELOPE * 4 / 3 + 4 < MAX_METADATA_VALUE * MAX_METADATA / 2);
const _: () = assert!(MAX_ENVELOPE * 8 < MAX_DDI_ANSWER);
// Ranges of numbers below 2^50, with their commas and brackets.
const _: () = assert!(MAX_LACKING * (2 * 16 + 4) < MAX_DDI_BODY);
// With a fifth of room, so that a neighbour at its bound is not left as a slow one.
const _: () = assert!(MIN_NEIGHBOUR_SPEED * MAX_NEIGHBOUR_DOWNLOADS as u64 * 5 / 4 <= MIN_NEIGHBOUR_RATE);
// Hashes in quotes, with their commas.
const _: () = assert!(MAX_SHARED * 67 < MAX_DDI_BODY / 2);
const _: () =
    assert!(MAX_NEIGHBOURS <= MAX_DRAWN && MAX_NEIGHBOUR_DOWNLOADS <= MAX_NEIGHBOUR_CONNECTIONS / 2);

// --- The server's connections and requests ---------------------------------------------------------------------

/// Most actions that one poll offers to our agents.
pub const MAX_OFFERED: usize = 16;
/// Most connections that are open at once.
pub const MAX_CONNECTIONS: usize = 16_384;
/// Most connections of one address: a fleet behind one address is large, but leaves room for others.
pub const MAX_CONNECTIONS_OF_ADDRESS: usize = MAX_CONNECTIONS * 3 / 4;
/// Most bytes of a request's head.
pub const MAX_HEAD: usize = 64 * 1024;
/// How long a TLS handshake may take.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request's head may take, and how long a connection stays open without one.
pub const HEADER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a request's body of DDI or management may take.
pub const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may stand still because its reader takes nothing.
pub const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// Requests of one device each second, and how many at once.
pub const DEVICE_RATE: (f64, f64) = (20.0, 100.0);
/// Most devices whose requests are counted.
pub const MAX_COUNTED_DEVICES: usize = 100_000;
/// Failed authentications of one address each second, and how many at once, that are told apart from too many. Tokens have 160 random
/// bits, so the budget is not what keeps them from being guessed.
pub const FAILURE_RATE: (f64, f64) = (1.0 / 30.0, 20.0);
/// Most addresses whose failures are counted.
pub const MAX_COUNTED_ADDRESSES: usize = 65_536;
/// How often the log tells of such failures, at most.
pub const FAILURE_WARNING: Duration = Duration::from_secs(60);
/// Most devices that nobody has decided about.
pub const MAX_PENDING_DEVICES: u64 = 10_000;
/// Largest body of a management request, objects apart: a task's envelope and its terms.
pub const MAX_MANAGE_BODY: usize = 256 * 1024;
/// How far an operator's clock may be from the server's.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);
/// Web hooks of a server.
pub const MAX_HOOKS: u32 = 32;
/// Events that are kept for web hooks; the oldest make room.
pub const MAX_EVENTS: u32 = 100_000;
/// How long an event is kept for web hooks: a weekend.
pub const EVENT_VALIDITY: Duration = Duration::from_secs(3 * 24 * 3600);
/// Links and sessions of the page of one operator, each; the oldest make room.
pub const MAX_LOGINS: u32 = 16;
/// How long a link to the page can be used.
pub const LINK_VALIDITY: Duration = Duration::from_secs(300);
/// How long a session of the page lasts.
pub const LOGIN_VALIDITY: Duration = Duration::from_secs(12 * 3600);
/// Largest body of a form of the page.
pub const MAX_FORM: usize = 4096;
/// Browsers that are told of changes at once.
pub const MAX_VIEWERS: usize = 64;
/// How many of them may be one operator's.
pub const MAX_VIEWERS_OF_OPERATOR: usize = MAX_VIEWERS / 4;
/// Devices that the page knows of.
pub const MAX_WATCHED: u32 = 100_000;
/// How long a signed list is valid.
pub const LIST_VALIDITY: Duration = Duration::from_secs(24 * 3600);

const _: () = assert!(MAX_ENVELOPE * 2 < MAX_MANAGE_BODY);
const _: () = assert!(MAX_CONNECTIONS_OF_ADDRESS < MAX_CONNECTIONS);

// --- Handlers and the journal ---------------------------------------------------------------------------------

/// Most steps that the journal remembers. The agent forgets those of tasks that are over.
pub const MAX_STEPS: usize = 1024;
/// Most steps that may be begun and not ended at a time.
pub const MAX_OPEN_STEPS: usize = 64;
/// Longest note of a step in bytes: what is needed to go on with it after a restart.
pub const MAX_NOTE: usize = 8192;
/// Longest text of an outcome in bytes; longer ones are cut.
pub const MAX_OUTCOME: usize = 1024;
/// A journal below this many bytes is never rewritten.
pub const JOURNAL_SMALL: u64 = 64 << 10;
/// Longest journal in bytes.
pub const MAX_JOURNAL: u64 = 16 << 20;

/// Longest record of a step in bytes: JSON escapes a byte with at most six, and the rest of a record has a fixed form.
pub const MAX_RECORD: usize = 6 * MAX_NOTE + 1024;

// A rewritten journal has room to grow, so rewriting it always helps.
const _: () = assert!(
    ((MAX_OPEN_STEPS * MAX_RECORD + MAX_STEPS * (6 * MAX_OUTCOME + 1024)) as u64)
        < MAX_JOURNAL - JOURNAL_SMALL
);
const _: () = assert!(MAX_OUTCOME <= MAX_NOTE);

/// Longest manifest of a handler in bytes.
pub const MAX_MANIFEST: u64 = 64 << 10;
/// Most characters of what is said of a wrong manifest or argument.
pub const MAX_CLAUSE: usize = 240;
/// Most arguments of a handler's command line, and most variables of its environment.
pub const MAX_WORDS: usize = 256;
/// Longest time that a manifest may give a handler, in seconds: two days.
pub const MAX_TIMEOUT_S: u64 = 2 * 24 * 3600;
/// Largest object that is copied into sealed memory for a handler, in bytes. Larger ones are read from their file.
pub const MAX_SEALED: u64 = 8 << 20;
/// How much of the beginning of a handler's output is kept, in bytes.
pub const OUTPUT_HEAD: usize = 4 << 10;
/// How much of its end is kept, in bytes. The last lines say most.
pub const OUTPUT_TAIL: usize = 12 << 10;
/// How often an interrupted step is resumed before it is reported.
pub const MAX_RUNS: u32 = 5;

// The description of a run fits one message to the helper process.
const _: () = assert!(MAX_WORDS * MAX_ARGUMENT <= 1 << 20);
