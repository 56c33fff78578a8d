//! The house rules that a machine can check: which module may import which, what the pure layers must not touch, where
//! `unsafe` may stand, how long a file may be, that every message has golden bytes, and that every link in the
//! documents leads somewhere.
//!
//! Each rule is a function from a [`Tree`] to its violations. The first half of the tests runs the rules over this
//! repository. The second half runs them over small bad samples, to show that each rule still finds violations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

// ---------------------------------------------------------------------------------------------
// The table of layers

/// A crate of the workspace.
struct Member {
    /// Where its sources are.
    dir: &'static str,
    /// Its name in paths.
    name: &'static str,
    /// The other crates of the workspace that it may name. The binary names its own library.
    may_name: &'static [&'static str],
}

/// The crates, from the lowest one up.
const MEMBERS: &[Member] = &[
    Member { dir: "crates/transfer/src/", name: "mcp_transfer", may_name: &[] },
    Member { dir: "crates/fleet/src/", name: "mcp_fleet", may_name: &["mcp_transfer"] },
    Member { dir: "src/", name: "mcp", may_name: &["mcp_transfer", "mcp_fleet", "mcp"] },
];

/// A layer: the crate that it is in, its modules, and the layers (by index into [`LAYERS`]) whose modules it may
/// import.
struct Layer {
    name: &'static str,
    home: &'static str,
    modules: &'static [&'static str],
    may_import: &'static [usize],
}

const LAYERS: &[Layer] = &[
    Layer {
        name: "L0 words",
        home: "mcp_transfer",
        modules: &["limits", "units", "time", "ranges", "text"],
        may_import: &[0],
    },
    Layer {
        name: "L1 pure parts",
        home: "mcp_transfer",
        modules: &["content", "layout", "wire", "crypto", "fec", "pack", "pacing", "task"],
        may_import: &[0],
    },
    Layer { name: "L2 protocol", home: "mcp_transfer", modules: &["protocol"], may_import: &[0, 1] },
    Layer {
        name: "L3 effects",
        home: "mcp_transfer",
        modules: &["storage", "store", "net", "keyring", "command"],
        may_import: &[0],
    },
    Layer {
        name: "L4 sessions",
        home: "mcp_transfer",
        modules: &["engine", "session"],
        may_import: &[0, 1, 2, 3, 4],
    },
    Layer {
        name: "L5 surface",
        home: "mcp",
        modules: &["ui", "cli", "doctor", "main"],
        may_import: &[0, 1, 2, 3, 4, 5],
    },
    // The whole crate counts as one module: it may import everything that the data plane has.
    Layer { name: "L6 fleet", home: "mcp_fleet", modules: &["fleet"], may_import: &[0, 1, 2, 3, 4, 6] },
    Layer {
        name: "test-bed",
        home: "mcp_transfer",
        modules: &["sim", "fuzzing"],
        may_import: &[0, 1, 2, 3, 4, 7],
    },
    Layer {
        name: "test-bed of the surface",
        home: "mcp",
        modules: &["agreement"],
        may_import: &[0, 1, 2, 3, 4, 5, 7, 8],
    },
];

/// Imports between modules of layers that otherwise do not see each other, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("fec", "layout", "an assembly is sized by the layout of its block"),
    ("keyring", "crypto", "what is kept are keys as text"),
    ("keyring", "storage", "files that appear whole or not at all"),
    ("store", "task", "what is kept are assignments, by their rules"),
    ("storage", "command", "a pipe may end in a command"),
    ("storage", "content", "a tree is read and written by its manifest"),
    ("storage", "pack", "zeros are recognised in one place"),
    ("net", "storage", "RawBytes: bytes of the map that only the kernel may read"),
    ("cli", "fleet", "the program runs the commands of the standing half"),
];

/// The last layer that does no I/O (I8).
const LAST_PURE: usize = 2;

/// Crates with a single home.
const HOMES: &[(&str, &str)] = &[
    ("raptorq", "fec"),
    ("memmap2", "storage"),
    ("minicbor", "content"),
    ("zstd", "pack"),
    ("tokio", "fleet"),
];

/// Dependencies that the manifest of the data plane must not name, not even for its tests: an async runtime, and the
/// crates above.
const BARRED: &[&str] = &["tokio", "mcp", "mcp-fleet"];

/// The only files in which `unsafe` may stand.
const UNSAFE_FILES: &[&str] = &[
    "crates/transfer/src/storage/mmap.rs",
    "crates/transfer/src/storage/device/ioctl.rs",
    "crates/transfer/src/net/sys.rs",
    "crates/transfer/src/fec/simd.rs",
];

/// Most lines of a file, its tests not counted.
const MAX_LINES: usize = 500;

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.modules.contains(&module))
}

// ---------------------------------------------------------------------------------------------
// The files and what is in them

/// Text files by path relative to the repository, with `/` between components.
struct Tree(BTreeMap<String, String>);

impl Tree {
    /// The repository's Rust and Markdown files and manifests, and the names of all others.
    fn repository() -> Self {
        fn walk(root: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(dir).expect("a readable directory") {
                let path = entry.expect("a readable entry").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() {
                    if !matches!(name.as_str(), "target" | ".git" | "artifacts" | "corpus") {
                        walk(root, &path, files);
                    }
                    continue;
                }
                let read = name.ends_with(".rs") || name.ends_with(".md") || name == "Cargo.toml";
                let text = if read { fs::read_to_string(&path).expect("UTF-8 text") } else { String::new() };
                let relative = path.strip_prefix(root).expect("below the root");
                files.insert(relative.to_string_lossy().replace('\\', "/"), text);
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = BTreeMap::new();
        walk(root, root, &mut files);
        Self(files)
    }

    /// A made-up tree.
    fn sample(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect())
    }

    /// The Rust files below `dir`, analysed.
    fn rust(&self, dir: &str) -> impl Iterator<Item = Source<'_>> {
        let dir = dir.to_owned();
        self.0
            .iter()
            .filter(move |(path, _)| path.starts_with(&dir) && path.ends_with(".rs"))
            .map(|(path, text)| Source::new(path, text))
    }

    /// The Rust files of the program: those which are tests as a whole are left out.
    fn program(&self) -> Vec<Source<'_>> {
        let all: Vec<_> = MEMBERS.iter().flat_map(|member| self.rust(member.dir)).collect();
        let tests: BTreeSet<String> =
            all.iter().flat_map(|s| s.test_modules.iter().map(|m| join(&s.module, m))).collect();
        let is_test = |module: &[String]| {
            module.last().is_some_and(|m| m == "tests")
                || (1..=module.len()).any(|n| tests.contains(&module[..n].join("::")))
        };
        all.into_iter().filter(|s| !is_test(&s.module)).collect()
    }
}

fn join(module: &[String], name: &str) -> String {
    module.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("::")
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A word, or `::`, or another single character; a string or character literal is empty.
    Code(String),
    Comment(String),
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    kind: Kind,
}

impl Token {
    fn code(&self) -> &str {
        if let Kind::Code(c) = &self.kind { c } else { "" }
    }
    fn is_word(&self) -> bool {
        self.code().starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Cuts Rust text into words, `::`, other characters and comments. Literals become empty tokens.
fn lex(text: &str) -> Vec<Token> {
    let c: Vec<char> = text.chars().collect();
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let word = |ch: char| ch.is_alphanumeric() || ch == '_';
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    while i < c.len() {
        let (start, first_line) = (i, line);
        let mut kind = None;
        if c[i].is_whitespace() {
            i += 1;
        } else if c[i] == '/' && at(i + 1) == '/' {
            while i < c.len() && c[i] != '\n' {
                i += 1;
            }
            kind = Some(Kind::Comment(c[start..i].iter().collect()));
        } else if c[i] == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= c.len() {
                    break;
                }
            }
            i = i.min(c.len());
            kind = Some(Kind::Comment(c[start..i].iter().collect()));
        } else if let Some(end) = string_end(&c, i) {
            i = end;
            kind = Some(Kind::Code(String::new()));
        } else if c[i] == '\'' {
            let escaped = at(i + 1) == '\\';
            if escaped || at(i + 2) == '\'' {
                i += if escaped { 3 } else { 2 };
                while i < c.len() && c[i] != '\'' {
                    i += 1;
                }
                i += 1;
                kind = Some(Kind::Code(String::new()));
            } else {
                // A lifetime: skip its name, which is no path.
                i += 1;
                while word(at(i)) {
                    i += 1;
                }
            }
        } else if word(c[i]) {
            while word(at(i)) {
                i += 1;
            }
            kind = Some(Kind::Code(c[start..i].iter().collect()));
        } else {
            i += if c[i] == ':' && at(i + 1) == ':' { 2 } else { 1 };
            kind = Some(Kind::Code(c[start..i].iter().collect()));
        }
        line += c[start..i.min(c.len())].iter().filter(|&&ch| ch == '\n').count();
        out.extend(kind.map(|kind| Token { line: first_line, kind }));
    }
    out
}

/// Where the string literal (plain, byte, C or raw) that begins at `i` ends, if one does.
fn string_end(c: &[char], mut i: usize) -> Option<usize> {
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    if matches!(at(i), 'b' | 'c') && matches!(at(i + 1), '"' | 'r') {
        i += 1;
    }
    let mut hashes = 0;
    let raw = at(i) == 'r';
    if raw {
        i += 1;
        while at(i) == '#' {
            (i, hashes) = (i + 1, hashes + 1);
        }
    }
    if at(i) != '"' {
        return None;
    }
    i += 1;
    while i < c.len() {
        match c[i] {
            '\\' if !raw => i += 1,
            '"' if (1..=hashes).all(|n| at(i + n) == '#') => return Some(i + 1 + hashes),
            _ => {}
        }
        i += 1;
    }
    Some(c.len())
}

/// A Rust file, its tests told apart from the rest.
struct Source<'a> {
    path: &'a str,
    /// The crate that it is in; none for tests, benches and the like.
    member: Option<&'static Member>,
    /// Module path within the crate: `["fec", "codec"]`; `["main"]` for the binary. Those of the crate `mcp_fleet` begin
    /// with `fleet`.
    module: Vec<String>,
    /// Every token.
    all: Vec<Token>,
    /// Code outside of tests, without comments.
    live: Vec<Token>,
    /// How many lines are not in tests.
    lines: usize,
    /// Names of the `mod name;` that are only for tests.
    test_modules: Vec<String>,
}

impl<'a> Source<'a> {
    fn new(path: &'a str, text: &str) -> Self {
        let all = lex(text);
        let code: Vec<Token> = all.iter().filter(|t| !matches!(t.kind, Kind::Comment(_))).cloned().collect();
        let spells = |i: usize, words: &[&str]| {
            words.iter().enumerate().all(|(n, w)| code.get(i + n).is_some_and(|t| t.code() == *w))
        };
        let (mut live, mut test_modules, mut tested, mut i) = (Vec::new(), Vec::new(), 0, 0);
        while i < code.len() {
            if spells(i, &["#", "!", "[", "cfg", "(", "test", ")", "]"]) {
                tested += text.lines().count() + 1 - code[i].line;
                break;
            }
            if spells(i, &["#", "[", "cfg", "(", "test", ")", "]"])
                || spells(i, &["#", "[", "cfg", "(", "all", "(", "test", ","])
            {
                let end = item_end(&code, i);
                if let Some(m) = (i..end).find(|&m| spells(m, &["mod"]))
                    && spells(m + 2, &[";"])
                {
                    test_modules.push(code[m + 1].code().to_owned());
                }
                tested += code[end - 1].line + 1 - code[i].line;
                i = end;
            } else {
                live.push(code[i].clone());
                i += 1;
            }
        }
        let member = MEMBERS.iter().find(|member| path.starts_with(member.dir));
        let within = path.trim_start_matches(member.map_or("", |member| member.dir)).trim_end_matches(".rs");
        let fleet = member.is_some_and(|member| member.name == "mcp_fleet").then_some("fleet");
        let parts = within.split('/').filter(|&part| part != "mod" && part != "lib");
        let module = fleet.into_iter().chain(parts).map(str::to_owned).collect();
        Self {
            path,
            member,
            module,
            all,
            live,
            lines: text.lines().count().saturating_sub(tested),
            test_modules,
        }
    }

    /// The top-level module that the file belongs to.
    fn top(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    /// Every path in the live code with its line; `use` trees are spread out.
    fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let (t, mut out, mut i) = (&self.live, Vec::new(), 0);
        let is = |i: usize, s: &str| t.get(i).is_some_and(|x| x.code() == s);
        while i < t.len() {
            if is(i, "use") && !is(i + 1, "<") {
                i = spread(t, i + 1, &[], &mut out);
            } else if t[i].is_word() && is(i + 1, "::") {
                let (line, mut path) = (t[i].line, vec![t[i].code().to_owned()]);
                while is(i + 1, "::") && t.get(i + 2).is_some_and(Token::is_word) {
                    i += 2;
                    path.push(t[i].code().to_owned());
                }
                out.push((line, path));
                i += 1;
            } else {
                i += 1;
            }
        }
        out
    }

    /// The top-level module that a path of this file leads to; none if it leads out of the workspace.
    fn target(&self, path: &[String]) -> Option<String> {
        let ups = path.iter().take_while(|p| *p == "super").count();
        match path[0].as_str() {
            "crate" if self.top() == "fleet" => Some("fleet".to_owned()),
            "crate" | "mcp" | "mcp_transfer" => path.get(1).cloned(),
            "mcp_fleet" => Some("fleet".to_owned()),
            "super" if ups >= self.module.len() => path.get(ups).cloned(),
            _ => None,
        }
    }
}

/// The index behind the item, field or expression whose first attribute stands at `i`.
fn item_end(code: &[Token], mut i: usize) -> usize {
    let mut depth = 0;
    while i < code.len() && code[i].code() == "#" {
        loop {
            match code[i].code() {
                "[" => depth += 1,
                "]" => depth -= 1,
                _ => {}
            }
            i += 1;
            if depth == 0 && code[i - 1].code() == "]" || i >= code.len() {
                break;
            }
        }
    }
    const TO_BRACE: [&str; 8] = ["mod", "fn", "impl", "struct", "enum", "trait", "macro_rules", "union"];
    const TO_SEMICOLON: [&str; 5] = ["use", "static", "type", "let", "extern"];
    let head: Vec<&str> = code[i..].iter().take(8).map(Token::code).collect();
    let item = head.iter().any(|w| TO_BRACE.contains(w));
    let statement = head.first().is_some_and(|w| *w == "const" || TO_SEMICOLON.contains(w))
        || head.first() == Some(&"pub") && head.iter().any(|w| *w == "const" || TO_SEMICOLON.contains(w));
    let statement = statement && !head.contains(&"fn");
    while i < code.len() {
        match code[i].code() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        i += 1;
        let last = code[i - 1].code();
        if depth < 0 {
            return i - 1;
        }
        if depth == 0 && (last == ";" || last == "}" && !statement || last == "," && !item && !statement) {
            return i;
        }
    }
    i
}

/// Spreads the `use` tree that begins at `i` out into `out`; the index behind it.
fn spread(t: &[Token], mut i: usize, prefix: &[String], out: &mut Vec<(usize, Vec<String>)>) -> usize {
    let (mut path, line) = (prefix.to_vec(), t.get(i).map_or(0, |x| x.line));
    while i < t.len() {
        match t[i].code() {
            "{" => {
                i += 1;
                while i < t.len() && t[i].code() != "}" {
                    i = spread(t, i, &path, out);
                    i += usize::from(t.get(i).is_some_and(|x| x.code() == ","));
                }
                return i + 1;
            }
            "," | ";" | "}" => break,
            "as" => i += 1,
            "::" => {}
            segment => path.push(segment.to_owned()),
        }
        i += 1;
    }
    out.push((line, path));
    i
}

// ---------------------------------------------------------------------------------------------
// The rules

fn at(path: &str, line: usize, says: &str) -> String {
    format!("{path}:{line}: {says}")
}

/// Imports point downwards only; effects are blind to the protocol; nothing imports `sim` or `fuzzing`.
fn layers(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for source in tree.program().iter().filter(|s| !s.module.is_empty()) {
        let from = source.top();
        let Some(layer) = layer_of(from) else {
            bad.push(at(
                source.path,
                1,
                &format!("module `{from}` is in no layer: give it one in tests/tidy.rs"),
            ));
            continue;
        };
        let Some(member) = source.member else { continue };
        if LAYERS[layer].home != member.name {
            let home = LAYERS[layer].home;
            bad.push(at(source.path, 1, &format!("module `{from}` belongs to the crate `{home}`")));
        }
        for (line, path) in source.paths() {
            if let Some((name, home)) = HOMES.iter().find(|(c, home)| path[0] == *c && from != *home) {
                bad.push(at(source.path, line, &format!("crate `{name}` is used in `{home}` only")));
            }
            let other = MEMBERS.iter().find(|other| path[0] == other.name);
            if let Some(other) = other.filter(|other| !member.may_name.contains(&other.name)) {
                let says = format!("`{}` may not name the crate `{}`", member.name, other.name);
                bad.push(at(source.path, line, &says));
                continue;
            }
            let Some(to) = source.target(&path) else { continue };
            let says = match layer_of(&to) {
                _ if to == from => continue,
                None => format!("`{to}` is in no layer: import by module, and give new modules a layer"),
                Some(other) if LAYERS[layer].may_import.contains(&other) => continue,
                Some(_) if EXCEPTIONS.iter().any(|(f, t, _)| *f == from && *t == to) => continue,
                Some(other) => format!(
                    "`{from}` ({}) may not import `{to}` ({}): imports point downwards only, pure parts do not \
                     see each other, effects do not see the protocol",
                    LAYERS[layer].name, LAYERS[other].name
                ),
            };
            bad.push(at(source.path, line, &says));
        }
    }
    bad
}

/// The data plane's manifest names no async runtime, and no crate above it.
fn manifest(tree: &Tree) -> Vec<String> {
    const PATH: &str = "crates/transfer/Cargo.toml";
    let Some(text) = tree.0.get(PATH) else { return vec![at(PATH, 1, "no data plane")] };
    let key = |line: &str| line.split(['.', '=', ' ']).next().unwrap_or("").trim_matches('"').to_owned();
    let lines = (1..).zip(text.lines());
    lines
        .map(|(line, text)| (line, key(text)))
        .filter(|(_, key)| BARRED.contains(&key.as_str()))
        .map(|(line, key)| at(PATH, line, &format!("the data plane does without `{key}`")))
        .collect()
}

/// L0 to L2 touch no clock, socket, file, thread, environment, terminal or source of randomness.
fn purity(tree: &Tree) -> Vec<String> {
    const WORDS: &[(&str, &str)] = &[
        ("Instant", "reads a clock: take the time as an argument"),
        ("SystemTime", "reads a clock: take the time as an argument"),
        ("UdpSocket", "is a socket: hand datagrams in and out"),
        ("TcpStream", "is a socket: hand datagrams in and out"),
        ("TcpListener", "is a socket: hand datagrams in and out"),
        ("RandomState", "draws randomness: take a seed as an argument"),
        ("HashMap", "iterates in a random order: use BTreeMap, so that a seed replays its run"),
        ("HashSet", "iterates in a random order: use BTreeSet, so that a seed replays its run"),
    ];
    const PATHS: &[(&str, &str)] = &[
        ("std::fs", "touches files: make it a job"),
        ("std::thread", "uses threads: make it a job"),
        ("std::env", "reads the environment: take it as an argument"),
        ("std::process", "touches processes: return an outcome"),
        ("std::os", "is for effects: it belongs to L3"),
        ("std::io::stdin", "uses the terminal: emit an event"),
        ("std::io::stdout", "uses the terminal: emit an event"),
        ("std::io::stderr", "uses the terminal: emit an event"),
        ("getrandom", "draws randomness: take a seed as an argument"),
        ("libc", "calls the system: it belongs to L3"),
        ("rustix", "calls the system: it belongs to L3"),
        ("mio", "uses sockets: it belongs to L3"),
        ("socket2", "uses sockets: it belongs to L3"),
        ("indicatif", "uses the terminal: emit an event"),
    ];
    const MACROS: &[&str] = &["println", "print", "eprintln", "eprint", "dbg"];
    let mut bad = Vec::new();
    for source in tree.program() {
        let Some(layer) = layer_of(source.top()).filter(|l| *l <= LAST_PURE) else { continue };
        let mut say = |line: usize, what: &str, why: &str| {
            bad.push(at(source.path, line, &format!("`{what}` in {} {why} (I8)", LAYERS[layer].name)));
        };
        for (i, token) in source.live.iter().enumerate() {
            let word = token.code();
            if let Some((_, why)) = WORDS.iter().find(|(w, _)| *w == word) {
                say(token.line, word, why);
            }
            if MACROS.contains(&word) && source.live.get(i + 1).is_some_and(|t| t.code() == "!") {
                say(token.line, word, "prints: emit an event");
            }
        }
        for (line, path) in source.paths() {
            let whole = path.join("::");
            let below = |p: &str| whole == p || whole.starts_with(&format!("{p}::"));
            if let Some((_, why)) = PATHS.iter().find(|(p, _)| below(p)) {
                say(line, &whole, why);
            }
            let unseeded = whole.ends_with("Rng::new") || whole.ends_with("Rng::default");
            if unseeded || path[0] == "fastrand" && path.get(1).is_none_or(|p| p != "Rng") {
                say(line, &whole, "draws randomness: take a seed as an argument");
            }
        }
    }
    bad
}

/// `unsafe` stands in four files only, each with its argument; lints are not switched off.
fn unsafety(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    const DIRS: [&str; 6] = ["src/", "crates/", "tests/", "examples/", "benches/", "fuzz/"];
    for source in DIRS.iter().flat_map(|d| tree.rust(d)) {
        let home = UNSAFE_FILES.contains(&source.path);
        let code: Vec<&Token> = source.all.iter().filter(|t| !matches!(t.kind, Kind::Comment(_))).collect();
        for (i, token) in code.iter().enumerate() {
            let next = |n: usize| code.get(i + n).map_or("", |t| t.code());
            if token.code() == "unsafe" && !home {
                bad.push(at(
                    source.path,
                    token.line,
                    &format!("`unsafe` stands only in {}", UNSAFE_FILES.join(", ")),
                ));
            } else if token.code() == "unsafe"
                && matches!(next(1), "{" | "impl")
                && !argued(&source, token.line)
            {
                bad.push(at(
                    source.path,
                    token.line,
                    "`unsafe` without a `// SAFETY:` comment right before it",
                ));
            }
            let switched_off = matches!(token.code(), "allow" | "expect") && next(1) == "(";
            let attribute = i > 1 && code[i - 1].code() == "[" && matches!(code[i - 2].code(), "#" | "!");
            // Modules that several test binaries share are allowed their dead code.
            let shared = source.path.starts_with("tests/") && next(2) == "dead_code";
            if switched_off && attribute && !shared && !(home && next(2) == "unsafe_code") {
                bad.push(at(source.path, token.line, "a lint is switched off: mend what it complains about"));
            }
        }
    }
    bad
}

/// Whether a block of comments with `SAFETY:` ends on the line before `line`, or before the
/// statement that reaches `line` (at most three lines further up).
fn argued(source: &Source<'_>, line: usize) -> bool {
    let comments: BTreeMap<usize, &str> = source
        .all
        .iter()
        .filter_map(|t| if let Kind::Comment(text) = &t.kind { Some((t.line, text.as_str())) } else { None })
        .collect();
    let Some(mut at) = (line.saturating_sub(4)..=line).rev().find(|l| comments.contains_key(l)) else {
        return false;
    };
    while let Some(text) = comments.get(&at) {
        if text.contains("SAFETY:") {
            return true;
        }
        at -= 1;
    }
    false
}

/// A file holds one concern: at most [`MAX_LINES`] lines that are not tests.
fn length(tree: &Tree) -> Vec<String> {
    let too_long = |s: &Source<'_>| s.lines > MAX_LINES;
    let says = |s: &Source<'_>| {
        format!("{} lines beside its tests, {MAX_LINES} allowed: split it by concern", s.lines)
    };
    let others = ["examples/", "benches/", "fuzz/"].iter().flat_map(|d| tree.rust(d));
    tree.program()
        .into_iter()
        .chain(others)
        .filter(too_long)
        .map(|s| at(s.path, s.lines, &says(&s)))
        .collect()
}

/// Every message has a file of its own with golden vectors, so that the format cannot drift.
fn golden(tree: &Tree) -> Vec<String> {
    const HOME: &str = "crates/transfer/src/wire/header.rs";
    let sources: BTreeMap<&str, Source<'_>> =
        tree.rust("crates/transfer/src/wire/").map(|s| (s.path, s)).collect();
    let Some(home) = sources.get(HOME) else { return vec![at(HOME, 1, "no wire format")] };
    let code: Vec<&str> = home.live.iter().map(Token::code).collect();
    let named = |name: &str| code.windows(2).position(|w| w == ["enum", name]);
    let Some(start) = named("MessageKind").or_else(|| named("Message")) else {
        return vec![at(HOME, 1, "no `enum MessageKind` or `enum Message` to take the messages from")];
    };
    let line = home.live[start].line;
    // The variants are the words after `{` or `,` at the depth of the enum's own braces.
    let (mut depth, mut messages) = (0, Vec::new());
    for pair in code[start..].windows(2) {
        match pair[0] {
            "{" | "(" => depth += 1,
            "}" if depth == 1 => break,
            "}" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 1 && matches!(pair[0], "{" | ",") && pair[1].starts_with(char::is_uppercase) {
            messages.push(pair[1]);
        }
    }
    let mut bad = Vec::new();
    if messages.is_empty() {
        bad.push(at(HOME, line, "the enum of the messages has no variants"));
    }
    for message in messages {
        let mut stem = String::new();
        for c in message.chars() {
            if c.is_uppercase() && !stem.is_empty() {
                stem.push('_');
            }
            stem.extend(c.to_lowercase());
        }
        let has_golden = |path: String| {
            sources.get(path.as_str()).is_some_and(|s| {
                s.all.windows(2).any(|w| w[0].code() == "fn" && w[1].code().contains("golden"))
            })
        };
        let files = [
            format!("crates/transfer/src/wire/{stem}.rs"),
            format!("crates/transfer/src/wire/{stem}/mod.rs"),
        ];
        if !files.iter().any(|f| sources.contains_key(f.as_str())) {
            bad.push(at(
                HOME,
                line,
                &format!("message `{message}` has no file crates/transfer/src/wire/{stem}.rs"),
            ));
        } else if !files
            .into_iter()
            .chain([format!("crates/transfer/src/wire/{stem}/tests.rs")])
            .any(has_golden)
        {
            bad.push(at(
                &format!("crates/transfer/src/wire/{stem}.rs"),
                1,
                "no test `*golden*`: pin the message's bytes in both directions",
            ));
        }
    }
    bad
}

/// Every relative link in the documents leads to a file, and every `#anchor` to a heading.
fn links(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for (path, text) in tree.0.iter().filter(|(p, _)| p.ends_with(".md")) {
        for (line, target) in link_targets(text) {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            if file.contains(':') || file.starts_with("//") {
                continue;
            }
            let full = if file.is_empty() { Some(path.clone()) } else { resolve(path, file) };
            let inside = |dir: &str| tree.0.keys().any(|p| p.starts_with(&format!("{dir}/")));
            match full.as_deref().and_then(|f| tree.0.get(f)) {
                None if full.as_deref().is_some_and(inside) => {}
                None => bad.push(at(path, line, &format!("link to `{target}`: no such file"))),
                Some(text) if anchor.is_empty() || headings(text).contains(anchor) => {}
                Some(_) => bad.push(at(path, line, &format!("link to `{target}`: no such heading"))),
            }
        }
    }
    bad
}

/// The lines of a Markdown text outside of fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(n, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((n + 1, line))
    })
}

/// The table of contents of the book names each document below `docs` once.
fn contents(tree: &Tree) -> Vec<String> {
    const SUMMARY: &str = "docs/SUMMARY.md";
    let Some(summary) = tree.0.get(SUMMARY) else { return vec![at(SUMMARY, 1, "no such file")] };
    let mut left: BTreeSet<&str> = tree.0.keys().map(String::as_str).collect();
    left.retain(|path| path.starts_with("docs/") && path.ends_with(".md") && *path != SUMMARY);
    let mut bad = Vec::new();
    for (line, target) in link_targets(summary) {
        let path = resolve(SUMMARY, &target).unwrap_or_default();
        if !left.remove(&*path) {
            bad.push(at(SUMMARY, line, &format!("`{target}` is no document of docs, or is named twice")));
        }
    }
    bad.extend(left.iter().map(|path| at(path, 1, "docs/SUMMARY.md does not name it")));
    bad
}

/// The targets of `[text](target)` and of `[name]: target`, with their lines.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (n, line) in prose(text) {
        // Every second piece between backticks is code.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for after in plain.split("](").skip(1) {
            let target = after.split([')', ' ']).next().unwrap_or("");
            out.push((n, target.to_owned()));
        }
        if let Some((_, target)) = plain.split_once("]: ").filter(|_| plain.starts_with('[')) {
            out.push((n, target.split(' ').next().unwrap_or("").to_owned()));
        }
    }
    out
}

/// The anchors of a Markdown text's headings.
fn headings(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    prose(text).filter(|(_, l)| l.starts_with('#')).map(|(_, l)| slug(l.trim_start_matches('#'))).collect()
}

/// `link` as seen from the document at `from`; none if it leaves the repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut full = PathBuf::from(from);
    full.pop();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir if !full.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            Component::Normal(name) => full.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(full.to_string_lossy().replace('\\', "/"))
}

/// Nothing is left for later without a trace outside the code.
fn unfinished(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for source in MEMBERS.iter().flat_map(|member| tree.rust(member.dir)) {
        for pair in source.all.windows(2) {
            let word = pair[0].code();
            if matches!(word, "todo" | "unimplemented" | "dbg") && pair[1].code() == "!" {
                bad.push(at(source.path, pair[0].line, &format!("`{word}!` in the program: finish it")));
            }
        }
        for token in &source.all {
            if let Kind::Comment(text) = &token.kind
                && let Some(mark) = ["TODO", "FIXME"].iter().find(|m| text.contains(*m))
            {
                bad.push(at(
                    source.path,
                    token.line,
                    &format!("`{mark}` in the program: finish it, or write an issue"),
                ));
            }
        }
    }
    bad
}

// ---------------------------------------------------------------------------------------------
// The rules over this repository

#[track_caller]
fn holds(rule: fn(&Tree) -> Vec<String>) {
    let bad = rule(&Tree::repository());
    assert!(bad.is_empty(), "{} violation(s):\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn imports_point_downwards() {
    holds(layers);
}

#[test]
fn the_data_plane_names_nothing_above_it() {
    holds(manifest);
}

#[test]
fn the_lower_layers_are_pure() {
    holds(purity);
}

#[test]
fn unsafe_stands_in_four_files() {
    holds(unsafety);
}

#[test]
fn files_are_short() {
    holds(length);
}

#[test]
fn every_message_has_golden_bytes() {
    holds(golden);
}

#[test]
fn every_link_leads_somewhere() {
    holds(links);
}

#[test]
fn the_book_has_every_document() {
    holds(contents);
}

#[test]
fn nothing_is_left_for_later() {
    holds(unfinished);
}

#[test]
fn the_exceptions_are_in_the_table_and_have_reasons() {
    for (from, to, why) in EXCEPTIONS {
        assert!(layer_of(from).is_some() && layer_of(to).is_some() && !why.is_empty(), "{from} -> {to}");
    }
}

// ---------------------------------------------------------------------------------------------
// The rules over bad samples

/// The rule finds exactly these violations (`path:line`) in the sample.
#[track_caller]
fn bites(rule: fn(&Tree) -> Vec<String>, files: &[(&str, &str)], wanted: &[&str]) {
    let bad = rule(&Tree::sample(files));
    let places: Vec<String> =
        bad.iter().map(|b| b.splitn(3, ':').take(2).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(places, wanted, "{bad:#?}");
}

#[test]
fn the_layer_rule_bites() {
    let net = "use std::io;\nuse crate::{\n    storage::RawBytes,\n    protocol::{job, event},\n};\n";
    bites(
        layers,
        &[("crates/transfer/src/net/batch.rs", net)],
        &["crates/transfer/src/net/batch.rs:4", "crates/transfer/src/net/batch.rs:4"],
    );
    bites(
        layers,
        &[("crates/transfer/src/fec/codec.rs", "fn f() -> super::super::wire::Nak {}")],
        &["crates/transfer/src/fec/codec.rs:1"],
    );
    bites(
        layers,
        &[("crates/transfer/src/fec/codec.rs", "use super::PlanCache;\nuse crate::layout::Layout;")],
        &[],
    );
    bites(
        layers,
        &[("crates/transfer/src/engine/mod.rs", "\nfn f(x: &crate::sim::World) {}")],
        &["crates/transfer/src/engine/mod.rs:2"],
    );
    bites(layers, &[("src/main.rs", "use mcp::sim::World;")], &["src/main.rs:1"]);
    bites(layers, &[("crates/transfer/src/sim/mod.rs", "use crate::engine::Engine;")], &[]);
    bites(layers, &[("crates/transfer/src/stray.rs", "")], &["crates/transfer/src/stray.rs:1"]);
    bites(
        layers,
        &[("crates/transfer/src/layout.rs", "use crate::Stray;")],
        &["crates/transfer/src/layout.rs:1"],
    );
    bites(
        layers,
        &[("crates/transfer/src/wire/mod.rs", "use raptorq::Encoder;")],
        &["crates/transfer/src/wire/mod.rs:1"],
    );
    bites(
        layers,
        &[("crates/transfer/src/units.rs", "#[cfg(any(test, feature = \"sim\"))]\nuse crate::fuzzing;")],
        &["crates/transfer/src/units.rs:2"],
    );
}

#[test]
fn the_walls_between_crates_bite() {
    let up = "use mcp::wire::Nak;\nuse mcp_fleet::ddi;\nuse tokio::net;";
    let net = "crates/transfer/src/net/mod.rs";
    let places = [
        "crates/transfer/src/net/mod.rs:1",
        "crates/transfer/src/net/mod.rs:2",
        "crates/transfer/src/net/mod.rs:3",
    ];
    bites(layers, &[(net, up)], &places);
    let cli =
        "use mcp_transfer::session::Send;\nuse mcp_fleet::commands::Command;\nuse mcp_transfer::sim::World;";
    bites(layers, &[("src/cli/mod.rs", cli)], &["src/cli/mod.rs:3"]);
    bites(
        layers,
        &[("src/ui/mod.rs", "use tokio::time;\nuse mcp_fleet::ddi;")],
        &["src/ui/mod.rs:1", "src/ui/mod.rs:2"],
    );
    let fleet = "use crate::ddi::Poll;\nuse mcp_transfer::net::share;\nuse tokio::net;\nuse mcp::cli::Args;";
    bites(layers, &[("crates/fleet/src/server/mod.rs", fleet)], &["crates/fleet/src/server/mod.rs:4"]);
    bites(layers, &[("src/wire/mod.rs", "")], &["src/wire/mod.rs:1"]);
    bites(layers, &[("src/agreement.rs", "use mcp_transfer::sim::World;\nuse crate::cli::report;")], &[]);
    bites(
        length,
        &[("crates/fleet/src/lib.rs", &"fn f() {}\n".repeat(501))],
        &["crates/fleet/src/lib.rs:501"],
    );
    let bare = "fn f() { unsafe { g() } }";
    bites(unsafety, &[("crates/fleet/tests/x.rs", bare)], &["crates/fleet/tests/x.rs:1"]);
    let manifests =
        "[dependencies]\nmio.workspace = true\n[dev-dependencies]\ntokio = \"1\"\nmcp.workspace = true\n";
    let path = "crates/transfer/Cargo.toml";
    bites(manifest, &[(path, manifests)], &["crates/transfer/Cargo.toml:4", "crates/transfer/Cargo.toml:5"]);
}

#[test]
fn tests_comments_and_strings_are_not_code() {
    let text = r##"
// use crate::cli;
const S: &str = "crate::cli"; const R: &str = r#"crate::"cli"#; const C: char = '"';
fn life<'a>(x: &'a str) -> &'a str { x }
#[cfg(test)]
use crate::cli::Args;
#[cfg(test)]
mod tests { use crate::cli; fn f() { println!("}"); } }
use crate::engine::Loop;
"##;
    bites(layers, &[("crates/transfer/src/wire/mod.rs", text)], &["crates/transfer/src/wire/mod.rs:9"]);
    bites(purity, &[("crates/transfer/src/wire/mod.rs", text)], &[]);
    let tests = "use crate::cli; fn f() { std::fs::read(\"x\"); }";
    let parent = "#[cfg(test)]\nmod world;\n#[cfg(test)] pub(crate) mod tests;";
    let files = [
        ("crates/transfer/src/wire/mod.rs", parent),
        ("crates/transfer/src/wire/world/mod.rs", tests),
        ("crates/transfer/src/wire/tests.rs", tests),
    ];
    bites(layers, &files, &[]);
    bites(purity, &files, &[]);
    let field = "struct S {\n#[cfg(test)]\nclock: std::time::Instant,\nlast: std::time::Instant }";
    bites(purity, &[("crates/transfer/src/layout.rs", field)], &["crates/transfer/src/layout.rs:4"]);
}

#[test]
fn the_purity_rule_bites() {
    for line in [
        "use std::time::{Duration, Instant};",
        "use std::{fs, net::SocketAddr};",
        "fn f() { std::thread::yield_now(); }",
        "fn f() { println!(\"x\"); }",
        "fn f() { let r = fastrand::Rng::new(); }",
        "fn f() { let r = fastrand::u8(..); }",
        "use std::collections::HashMap;",
        "use socket2::Socket;",
    ] {
        bites(
            purity,
            &[("crates/transfer/src/protocol/sender/mod.rs", line)],
            &["crates/transfer/src/protocol/sender/mod.rs:1"],
        );
        bites(purity, &[("crates/transfer/src/engine/mod.rs", line)], &[]);
    }
    let fine = "use std::time::Duration;\nfn f(seed: u64) { let r = fastrand::Rng::with_seed(seed); }";
    bites(purity, &[("crates/transfer/src/protocol/timer.rs", fine)], &[]);
}

#[test]
fn the_unsafe_rule_bites() {
    let bare = "fn f() {\n    unsafe { g() }\n}";
    let argued = "#![allow(unsafe_code)]\nfn f() {\n    // SAFETY: g is called once,\n    // right here.\n    unsafe { g() }\n}";
    bites(
        unsafety,
        &[("crates/transfer/src/net/batch.rs", argued)],
        &["crates/transfer/src/net/batch.rs:1", "crates/transfer/src/net/batch.rs:5"],
    );
    bites(unsafety, &[("crates/transfer/src/net/sys.rs", bare)], &["crates/transfer/src/net/sys.rs:2"]);
    bites(unsafety, &[("crates/transfer/src/net/sys.rs", argued)], &[]);
    bites(unsafety, &[("tests/x.rs", "unsafe impl Send for X {}")], &["tests/x.rs:1"]);
    bites(
        unsafety,
        &[("crates/transfer/src/net/sys.rs", "#[allow(clippy::all)]\nfn f() {}")],
        &["crates/transfer/src/net/sys.rs:1"],
    );
    bites(unsafety, &[("tests/support/mod.rs", "#![allow(dead_code, reason = \"shared\")]")], &[]);
}

#[test]
fn the_length_rule_bites() {
    let body = "fn f() {}\n".repeat(MAX_LINES);
    let tests = format!("{body}#[cfg(test)]\nmod tests {{\n{body}}}\n");
    let long = format!("{body}// One more.\n");
    bites(
        length,
        &[("crates/transfer/src/engine/a.rs", &tests), ("crates/transfer/src/engine/tests.rs", &long)],
        &[],
    );
    bites(length, &[("crates/transfer/src/engine/b.rs", &long)], &["crates/transfer/src/engine/b.rs:501"]);
}

#[test]
fn the_golden_rule_bites() {
    let messages = "pub enum Message<'a> {\n    Poll(Poll),\n    HashPage(HashPage),\n    Nak(Nak<'a>),\n}";
    let files = [
        ("crates/transfer/src/wire/header.rs", messages),
        ("crates/transfer/src/wire/poll.rs", "#[test]\nfn golden_bytes() {}"),
        ("crates/transfer/src/wire/nak.rs", "#[test]\nfn round_trip() {}"),
    ];
    bites(golden, &files, &["crates/transfer/src/wire/header.rs:1", "crates/transfer/src/wire/nak.rs:1"]);
    let kinds =
        "\npub enum MessageKind {\n    /// A.\n    Poll = 1,\n    Nak = 2,\n}\nmessages! { Poll(Poll), }";
    bites(
        golden,
        &[("crates/transfer/src/wire/header.rs", kinds), files[1]],
        &["crates/transfer/src/wire/header.rs:2"],
    );
    bites(golden, &[("crates/transfer/src/wire/header.rs", "")], &["crates/transfer/src/wire/header.rs:1"]);
}

#[test]
fn the_link_rule_bites() {
    let text = "# A title, here\n[a](gone.md) [b](docs/b.md#two-words) `[c](x.md)`\n```\n[d](y.md)\n```\n\
                [e](#a-title-here) [f](docs/b.md#three) [g](https://h.example/i) [j](docs) [k](../l.md)\n";
    let files = [("README.md", text), ("docs/b.md", "## Two words\n[r](../README.md)\n")];
    bites(links, &files, &["README.md:2", "README.md:6", "README.md:6"]);
}

#[test]
fn the_contents_rule_bites() {
    let summary = "# Summary\n- [A](a.md)\n- [A `x`](a.md)\n  - [B](sub/b.md)\n- [C](../README.md)\n";
    let files = [
        ("docs/SUMMARY.md", summary),
        ("docs/a.md", ""),
        ("docs/sub/b.md", ""),
        ("docs/d.md", ""),
        ("README.md", ""),
    ];
    bites(contents, &files, &["docs/SUMMARY.md:3", "docs/SUMMARY.md:5", "docs/d.md:1"]);
    bites(contents, &files[1..2], &["docs/SUMMARY.md:1"]);
}

#[test]
fn the_unfinished_rule_bites() {
    let text = "fn f() {\n    // FIXME: later\n    todo!()\n}\nconst S: &str = \"TODO\";\n";
    bites(unfinished, &[("src/ui/mod.rs", text)], &["src/ui/mod.rs:3", "src/ui/mod.rs:2"]);
}
