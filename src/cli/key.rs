//! `mcp key`: shows and changes the keyring. Lines to be carried or piped go to standard output, explanations to
//! standard error.

use super::args::{KeyArgs, KeyCommand};
use super::exit::Exit;
use super::identity::{StateDir, host_label};
use super::report::{self, Error, tell};
use super::trust::refuse_key_line;
use crate::ui::escape;
use mcp_transfer::crypto::group::{GroupKey, GroupKeys};
use mcp_transfer::crypto::sign::SigningKey;
use mcp_transfer::keyring::{Added, Keyring, SendersError};
use mcp_transfer::limits::MAX_KEY_FILE;
use mcp_transfer::units::DeviceKey;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use zeroize::Zeroizing;

/// Runs `mcp key`.
#[must_use]
pub fn run(args: KeyArgs) -> Exit {
    let mut warnings = Vec::new();
    let done = try_run(args.command, &mut warnings);
    for warning in &warnings {
        report::warning(warning);
    }
    match done {
        Ok(()) => Exit::Complete,
        Err(error) => {
            report::error(&error);
            error.exit()
        }
    }
}

fn try_run(command: KeyCommand, warnings: &mut Vec<String>) -> Result<(), Error> {
    let ring = StateDir::find()?.ring.ok_or_else(|| {
        Error::Environment("there is nowhere to keep keys: HOME is not set; set MCP_STATE_DIR".into())
    })?;
    match command {
        KeyCommand::New { name } => {
            carry(&ring.create(&name)?)?;
            tell("made and installed; on each other machine run 'mcp key add' and give it this line");
        }
        KeyCommand::Add { file } => {
            let keys = read(file.as_deref())?;
            let current = keys.current().clone();
            let (name, id) = (current.name(), current.id());
            tell(&match ring.add(keys, warnings)? {
                Added::New => format!("key {name} ({id}) is installed"),
                Added::Renewed => {
                    format!("key {name} ({id}) is installed; the one before is kept for receiving")
                }
                Added::Current => format!("key {name} ({id}) was installed already"),
                Added::Older => {
                    format!("key {name} ({id}) was here before and has been renewed since; nothing changed")
                }
            });
        }
        KeyCommand::List => list(&ring, warnings)?,
        KeyCommand::Show { name: Some(name) } => carry(ring.keys(&name, warnings)?.current())?,
        KeyCommand::Show { name: None } => {
            let key = SigningKey::new(&ring.sender(warnings)?).public();
            print(&key.line())?;
            tell(&format!("this machine as a sender: {}; for 'mcp recv --sender'", key.fingerprint()));
        }
        KeyCommand::Device { id } => {
            let key = DeviceKey::of(&SigningKey::new(&ring.device(1, warnings)?));
            print(&format!("{} {}", id.unwrap_or_else(host_label), key.line()))?;
            tell(&format!(
                "this machine as a device: {}; for a list of 'mcp send --devices'",
                key.fingerprint()
            ));
        }
        KeyCommand::Remove { name, older: false } => {
            ring.remove(&name)?;
            tell(&format!("key {name} is removed, here; other machines still have it"));
        }
        KeyCommand::Remove { name, older: true } => {
            let dropped = ring.remove_older(&name, warnings)?;
            tell(&format!("{dropped} older of key {name} removed; the current one stays"));
        }
        KeyCommand::Rotate { name } => {
            carry(&ring.rotate(&name, warnings)?)?;
            tell(&format!(
                "renewed; run 'mcp key add' with this line on each other machine. Sessions sealed with the key before \
                 are still taken here, until 'mcp key remove --older {name}'"
            ));
        }
        KeyCommand::Forget { sender } => {
            for known in ring.forget(&sender, warnings)? {
                tell(&format!("forgot the sender {} at {}", known.key.fingerprint(), known.address));
            }
        }
    }
    Ok(())
}

/// Reads the keys of a file, or of standard input if there is no file or it is `-`.
fn read(file: Option<&Path>) -> Result<GroupKeys, Error> {
    let file = file.filter(|path| *path != Path::new("-"));
    let (source, shown) = match file {
        Some(path) => {
            refuse_key_line(path)?;
            let shown = path.display().to_string();
            let opened = File::open(path);
            let opened = opened
                .map_err(|e| Error::Environment(format!("cannot read {shown} ({e}); check the name")))?;
            (opened, shown)
        }
        None => {
            if io::stdin().is_terminal() {
                tell("paste the line, then press Enter and Ctrl-D");
            }
            // Bypasses the buffer of `Stdin`, which would keep a copy.
            let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
            let stdin = stdin.map_err(|e| Error::Environment(format!("cannot read standard input ({e})")))?;
            (stdin, "standard input".to_owned())
        }
    };
    // Reserves all the room at once: a growing vector leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE + 64));
    let taken = source.take(MAX_KEY_FILE as u64 + 1).read_to_end(&mut bytes);
    taken.map_err(|e| Error::Environment(format!("cannot read {shown} ({e})")))?;
    GroupKeys::parse(&bytes).map_err(|e| Error::Usage(format!("{shown} has no usable key: {e}")))
}

fn list(ring: &Keyring, warnings: &mut Vec<String>) -> Result<(), Error> {
    let names = ring.names()?;
    let widest = names.iter().map(String::len).max().unwrap_or(0);
    for name in &names {
        // A damaged key must not hide the others.
        let line = match ring.keys(name, warnings) {
            Ok(keys) => {
                let older: Vec<String> = keys.older().iter().map(GroupKey::id).collect();
                let older =
                    if older.is_empty() { String::new() } else { format!("  older: {}", older.join(", ")) };
                format!("{}{older}", keys.current().id())
            }
            Err(error) => {
                warnings.push(error.to_string());
                "unusable".to_owned()
            }
        };
        print(&format!("key     {name:widest$}  {line}"))?;
    }
    let known = ring.known_senders(warnings)?;
    let widest = known.iter().map(|known| known.address.to_string().len()).max().unwrap_or(0);
    for known in &known {
        let (address, label) = (known.address.to_string(), escape(&known.label));
        print(&format!("sender  {address:widest$}  {}  {label}", known.key.fingerprint()))?;
    }
    for known in ring.known_devices(warnings)? {
        print(&format!("device  {}  {}", known.key.fingerprint(), escape(&known.label)))?;
    }
    if names.is_empty() {
        tell(
            "no keys are installed; 'mcp key new NAME' makes one, 'mcp key add' installs one from elsewhere",
        );
    }
    Ok(())
}

/// Prints the key's line.
fn carry(key: &GroupKey) -> Result<(), Error> {
    print(&key.line())
}

fn print(line: &str) -> Result<(), Error> {
    let mut out = io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| Error::Environment(format!("cannot write to standard output ({e})")))
}

impl From<SendersError> for Error {
    fn from(error: SendersError) -> Self {
        match error {
            SendersError::Keyring(error) => error.into(),
            SendersError::Full | SendersError::Unknown(_) => Self::Usage(error.to_string()),
        }
    }
}
