//! A handler's manifest: `NAME.toml` in the directory of handlers, written by the machine's administrator.
//!
//! It is the only source of what may run: executable, arguments, user, limits, sandbox. Every error names the file, the
//! line and what to do. `docs/decisions/0037-handlers.md` describes the fields; `packaging/handlers` has examples.

use super::arguments::{self, Argument, Checked, Template, Values};
use super::trusted::{self, Links};
use crate::limits::{MAX_CLAUSE, MAX_MANIFEST, MAX_TIMEOUT_S, MAX_WORDS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// What is done with a run that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interrupted {
    /// It is run again: the handler goes on where it was, or does the same again without harm.
    Resume,
    /// The rollback is run.
    Rollback,
    /// Nothing is run; people are told.
    Report,
}

/// Until when a run can be cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cancel {
    /// Until it starts.
    #[default]
    BeforeStart,
    /// Until the handler says that it is past its point of no return.
    BeforeCommit,
    /// At any time.
    AnyTime,
}

/// What a handler does with the object of its task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Object {
    /// It needs one.
    #[default]
    Required,
    /// It takes none.
    None,
}

/// A command of the manifest: for the run, the check or the rollback.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCommand {
    exec: Spanned<PathBuf>,
    #[serde(default)]
    args: Vec<Spanned<String>>,
    timeout: Option<Spanned<String>>,
}

/// What exit codes mean. All others are failures.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Exit {
    pub done: Vec<i32>,
    pub reboot_needed: Vec<i32>,
    pub retry: Vec<i32>,
}

impl Default for Exit {
    fn default() -> Self {
        Self { done: vec![0], reboot_needed: Vec::new(), retry: vec![75] }
    }
}

/// What a handler may touch. The default is next to nothing.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Sandbox {
    /// What it may read and execute, below these paths.
    pub read: Vec<PathBuf>,
    /// What it may change, below these paths.
    pub write: Vec<PathBuf>,
    /// The host's network. Otherwise it has none, not even a loopback interface that is up.
    pub network: bool,
    /// The host's `/run`, with the sockets of its services. Otherwise that is empty.
    pub services: bool,
    /// Capabilities that a handler of root keeps, without `CAP_`.
    pub capabilities: Vec<String>,
    /// System calls that it may use although they are usually refused.
    pub syscalls: Vec<String>,
}

impl Default for Sandbox {
    fn default() -> Self {
        let read = ["/bin", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/usr"];
        Self {
            read: read.map(PathBuf::from).to_vec(),
            write: Vec::new(),
            network: false,
            services: false,
            capabilities: Vec::new(),
            syscalls: Vec::new(),
        }
    }
}

/// How much a handler may take. Sizes are in MiB.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Limits {
    /// Memory: of all its processes if there is a cgroup, otherwise of each.
    pub memory: u64,
    /// The longest file that it may write.
    pub file: u64,
    /// Its private `/tmp`.
    pub tmp: u64,
    /// Processes: all of its own if there is a cgroup, otherwise those of its user.
    pub processes: u64,
    /// Open files of each process.
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 512, file: 64 << 10, tmp: 64, processes: 256, files: 1024 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    description: String,
    #[serde(default)]
    user: Option<Spanned<String>>,
    interrupted: Spanned<Interrupted>,
    #[serde(default)]
    cancel: Cancel,
    #[serde(default)]
    object: Object,
    kill_after: Option<Spanned<String>>,
    run: RawCommand,
    check: Option<RawCommand>,
    rollback: Option<RawCommand>,
    #[serde(default)]
    exit: Exit,
    #[serde(default)]
    environment: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    arguments: BTreeMap<String, Spanned<Argument>>,
    sandbox: Option<Spanned<Sandbox>>,
    limits: Option<Spanned<Limits>>,
}

/// A command, checked.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub exec: PathBuf,
    pub args: Vec<Template>,
    pub timeout: Duration,
}

/// A manifest, checked.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(super) name: String,
    pub(super) description: String,
    /// The user that it runs as; the agent's if there is none.
    pub(super) user: Option<User>,
    pub(super) interrupted: Interrupted,
    pub(super) cancel: Cancel,
    pub(super) object: Object,
    /// Time between SIGTERM and SIGKILL.
    pub(super) kill_after: Duration,
    pub(super) run: Command,
    pub(super) check: Option<Command>,
    pub(super) rollback: Option<Command>,
    pub(super) exit: Exit,
    pub(super) environment: BTreeMap<String, Template>,
    pub(super) arguments: BTreeMap<String, Argument>,
    pub(super) sandbox: Sandbox,
    pub(super) limits: Limits,
}

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Whether `name` can be a handler's: letters, digits, `-`, `_`, beginning with a letter or digit.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=64).contains(&name.len())
        && name.chars().all(fits)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

impl Manifest {
    /// Reads the manifest of the handler `name` in `directory`. Nobody but root and the agent's user can have written
    /// it.
    ///
    /// # Errors
    /// `None` if there is no such handler. Otherwise why it cannot be used: file, line and next step.
    pub fn load(directory: &Path, name: &str) -> Result<Self, Option<String>> {
        if !is_name(name) {
            return Err(None);
        }
        let path = directory.join(format!("{name}.toml"));
        let file = match trusted::open_file(&path, Links::Refuse) {
            Err(untrusted) if untrusted.absent => return Err(None),
            Err(untrusted) => return Err(Some(untrusted.why)),
            Ok(file) => file,
        };
        let text = read(file).map_err(|why| format!("{}: {why}", path.display()))?;
        Self::parse(name, &text)
            .map_err(|wrong| Some(format!("{}:{}: {}", path.display(), wrong.line(&text), wrong.why)))
    }

    /// Reads the text of a manifest.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Wrong> {
        Self::read(name, text).map_err(|wrong| Wrong { why: clause(&wrong.why), ..wrong })
    }

    fn read(name: &str, text: &str) -> Result<Self, Wrong> {
        let raw: Raw = toml::from_str(text).map_err(|e| {
            let why = e.message().replace('\n', " ");
            Wrong { at: e.span(), why: format!("{why}; see the examples in packaging/handlers") }
        })?;
        let mut environment = BTreeMap::new();
        for (variable, template) in &raw.environment {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if variable.is_empty() || !variable.chars().all(fits) || variable.starts_with("MCP_") {
                let why = format!("{variable} is no name for a variable (MCP_ is taken); rename it");
                return Err(Wrong { at: Some(template.span()), why });
            }
            environment.insert(variable.clone(), self::template(template, &raw)?);
        }
        for (name, argument) in &raw.arguments {
            if !is_name(name) {
                let why = format!("'{name}' is no name for an argument; use letters, digits, '-' and '_'");
                return Err(Wrong { at: Some(argument.span()), why });
            }
            argument.get_ref().validate().map_err(|why| Wrong { at: Some(argument.span()), why })?;
        }
        if environment.len() > MAX_WORDS || raw.arguments.len() > MAX_WORDS {
            return Err(Wrong {
                at: None,
                why: format!("it has more than {MAX_WORDS} entries; remove some"),
            });
        }
        if *raw.interrupted.get_ref() == Interrupted::Rollback && raw.rollback.is_none() {
            let why = "it wants a rollback and has none; add a table [rollback]".to_owned();
            return Err(Wrong { at: Some(raw.interrupted.span()), why });
        }
        if let Some(sandbox) = &raw.sandbox {
            super::sandbox::validate(sandbox.get_ref())
                .map_err(|why| Wrong { at: Some(sandbox.span()), why })?;
        }
        let limits = raw.limits.as_ref().map_or_else(Limits::default, |limits| *limits.get_ref());
        // The helper needs some of both to set the rest up, and a number of bytes must fit.
        if limits.memory < 16 || limits.files < 32 || limits.memory.max(limits.file).max(limits.tmp) > 1 << 40
        {
            let why = "memory must be at least 16, files at least 32, and no size above 2^40; change them";
            return Err(Wrong { at: raw.limits.map(|limits| limits.span()), why: why.to_owned() });
        }
        let user = raw.user.as_ref().map(user).transpose()?;
        let of = |raw_command: &RawCommand, seconds| command(raw_command, &raw, seconds);
        Ok(Self {
            name: name.to_owned(),
            user,
            interrupted: *raw.interrupted.get_ref(),
            cancel: raw.cancel,
            object: raw.object,
            kill_after: duration(raw.kill_after.as_ref(), 10)?,
            run: of(&raw.run, 600)?,
            check: raw.check.as_ref().map(|check| of(check, 60)).transpose()?,
            rollback: raw.rollback.as_ref().map(|rollback| of(rollback, 600)).transpose()?,
            environment,
            limits,
            arguments: raw
                .arguments
                .into_iter()
                .map(|(name, argument)| (name, argument.into_inner()))
                .collect(),
            sandbox: raw.sandbox.map(Spanned::into_inner).unwrap_or_default(),
            exit: raw.exit,
            description: raw.description,
        })
    }

    /// What it is for, in the words of the administrator.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Until when a run can be cancelled.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        self.cancel
    }

    /// Checks the arguments of a task.
    pub(super) fn check_arguments(&self, values: &Values) -> Result<Checked, String> {
        arguments::check(&self.arguments, values).map_err(|why| clause(&why))
    }
}

/// `why` as one line of bounded length: it may quote the manifest or the task, and goes into logs and feedback.
fn clause(why: &str) -> String {
    let line = mcp_transfer::text::escape(why);
    let cut = line.char_indices().nth(MAX_CLAUSE).map_or(line.len(), |(at, _)| at);
    line[..cut].to_owned()
}

/// What is wrong, and where in the text.
#[derive(Debug)]
pub(super) struct Wrong {
    at: Option<Range<usize>>,
    pub why: String,
}

impl Wrong {
    pub fn line(&self, text: &str) -> usize {
        let at = self.at.as_ref().map_or(0, |at| at.start.min(text.len()));
        1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count()
    }
}

fn read(file: File) -> Result<String, String> {
    let mut text = String::new();
    let read = file.take(MAX_MANIFEST + 1).read_to_string(&mut text);
    match read {
        Ok(n) if n as u64 <= MAX_MANIFEST => Ok(text),
        Ok(_) => Err(format!("it is longer than {MAX_MANIFEST} bytes; shorten it")),
        Err(e) => Err(format!("it cannot be read ({e}); write it as UTF-8")),
    }
}

fn template(text: &Spanned<String>, raw: &Raw) -> Result<Template, Wrong> {
    let wrong = |why| Wrong { at: Some(text.span()), why };
    let template = Template::parse(text.get_ref()).map_err(wrong)?;
    if let Some(name) = template.names().find(|name| !raw.arguments.contains_key(*name)) {
        return Err(wrong(format!("there is no argument {name}; add a table [arguments.{name}]")));
    }
    if template.has_object() && raw.object == Object::None {
        return Err(wrong("it takes no object; remove object = \"none\"".to_owned()));
    }
    Ok(template)
}

fn command(command: &RawCommand, raw: &Raw, seconds: u64) -> Result<Command, Wrong> {
    let exec = command.exec.get_ref();
    let at = || Some(command.exec.span());
    if command.args.len() > MAX_WORDS {
        return Err(Wrong { at: at(), why: format!("it has more than {MAX_WORDS} arguments; remove some") });
    }
    // Found out now rather than at the first task. It is opened anew for each run.
    trusted::open_file(exec, Links::Follow).map_err(|untrusted| Wrong { at: at(), why: untrusted.why })?;
    Ok(Command {
        exec: exec.clone(),
        args: command.args.iter().map(|text| template(text, raw)).collect::<Result<_, _>>()?,
        timeout: duration(command.timeout.as_ref(), seconds)?,
    })
}

fn duration(text: Option<&Spanned<String>>, default_s: u64) -> Result<Duration, Wrong> {
    let Some(text) = text else { return Ok(Duration::from_secs(default_s)) };
    match humantime::parse_duration(text.get_ref()) {
        Ok(time) if !time.is_zero() && time.as_secs() <= MAX_TIMEOUT_S => Ok(time),
        _ => {
            let why = format!("{} is no time of at most two days; write it like '10m'", text.get_ref());
            Err(Wrong { at: Some(text.span()), why })
        }
    }
}

/// The user of this name in `/etc/passwd`. Directories on the network are not asked: a handler must not wait for them.
fn user(name: &Spanned<String>) -> Result<User, Wrong> {
    let wrong = |why: String| Wrong { at: Some(name.span()), why };
    let users = std::fs::read_to_string("/etc/passwd")
        .map_err(|e| wrong(format!("/etc/passwd cannot be read ({e}); repair it")))?;
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (known, _password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (known == name.get_ref()).then(|| Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? }))?
    });
    user.ok_or_else(|| {
        wrong(format!("there is no user {} in /etc/passwd; run 'useradd --system' first", name.get_ref()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
description = "Says hello"
user = "nobody"
interrupted = "resume"
cancel = "any-time"
[run]
exec = "/bin/sh"
args = ["-c", "echo hello", "{object}", "--name={arg.name}"]
timeout = "90s"
[check]
exec = "/bin/true"
[exit]
reboot-needed = [100]
[environment]
PATH = "/usr/bin"
GREETING = "{arg.name}"
[arguments.name]
type = "string"
pattern = "[a-z]+"
[sandbox]
network = true
[limits]
memory = 64
"#;

    #[test]
    fn a_manifest_is_read() {
        let manifest = Manifest::parse("hello", GOOD).unwrap();
        assert_eq!(manifest.run.timeout, Duration::from_secs(90));
        assert_eq!((manifest.exit.done, manifest.exit.retry), (vec![0], vec![75]));
        assert!(manifest.sandbox.network && !manifest.sandbox.services && manifest.sandbox.write.is_empty());
        assert_eq!((manifest.limits.memory, manifest.limits.tmp), (64, 64));
        assert_eq!(manifest.user.unwrap().uid, 65534);
    }

    #[test]
    fn errors_name_the_line_and_what_to_do() {
        let bad = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            let text = GOOD.replacen(from, to, 1);
            let wrong = Manifest::parse("hello", &text).unwrap_err();
            (wrong.line(&text), wrong.why)
        };
        for (from, to, line, why) in [
            ("user = \"nobody\"", "user = \"no-such-user\"", 3, "useradd"),
            ("\"resume\"", "\"repeat\"", 4, "repeat"),
            ("\"resume\"", "\"rollback\"", 4, "[rollback]"),
            ("\"/bin/sh\"", "\"/no/such/sh\"", 7, "/no"),
            ("\"/bin/sh\"", "\"bin/sh\"", 7, "absolute"),
            ("{arg.name}", "{arg.nane}", 8, "[arguments.nane]"),
            ("{object}", "{objekt}", 8, "{objekt}"),
            ("\"90s\"", "\"soon\"", 9, "soon"),
            ("\"90s\"", "\"3d\"", 9, "two days"),
            ("[check]\nexec", "[check]\nexce", 11, "exce"),
            ("PATH =", "MCP_PATH =", 15, "rename"),
            ("\"[a-z]+\"", "\"[a-z\"", 17, "pattern"),
            ("network", "netwerk", 21, "netwerk"),
            ("network = true", "capabilities = [\"FLY\"]", 20, "FLY"),
            ("network = true", "syscalls = [\"fly\"]", 20, "fly"),
            ("network = true", "write = [\"srv\"]", 20, "absolute"),
            ("memory = 64", "memory = 1", 22, "at least"),
            ("description", "descr iption", 2, "packaging/handlers"),
        ] {
            let (at, said) = bad(from, to);
            assert!(said.contains(why), "{to}: {said}");
            assert_eq!(at, line, "{to}: {said}");
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["", "..", "../x", "a/b", "-x", ".x", "a.b", "a\0", "a b", "a\n", &"x".repeat(65)] {
            assert!(!is_name(name), "{name:?}");
            assert!(matches!(Manifest::load(Path::new("/etc"), name), Err(None)), "{name:?}");
        }
    }
}
