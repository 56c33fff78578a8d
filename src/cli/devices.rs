//! `--devices FILE`: the list of devices that a file is for.
//!
//! ```text
//! # one device a line: its name, or its name and its key as 'mcp key device' prints them
//! lab-01
//! lab-02 mcp-device1-a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4ds6q2ooa
//! ```

use super::args::parse_name;
use super::identity::DeviceIdentity;
use super::report::Error;
use mcp_transfer::limits::{MAX_DEVICES, MAX_LIST_LINE};
use mcp_transfer::task::{DeviceList, Listed};
use mcp_transfer::units::DeviceKey;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file, in bytes.
const MOST: u64 = (MAX_DEVICES * MAX_LIST_LINE) as u64;

/// Reads the list.
///
/// # Errors
/// If the file cannot be read, a line is wrong, a name or a key comes twice, or nobody is listed.
pub fn read(path: &Path) -> Result<DeviceList, Error> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::Environment(format!("cannot read {shown} ({e}); check --devices")))?;
    if bytes.len() as u64 > MOST {
        return Err(Error::Usage(format!("{shown} is too large for a list of {MAX_DEVICES} devices")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Usage(format!("{shown} is not text; write one device a line")))?;
    parse(&text).map_err(|why| Error::Usage(format!("{shown}{why}")))
}

/// Parses the list; the error follows the file's name.
fn parse(text: &str) -> Result<DeviceList, String> {
    let mut list = DeviceList::default();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |why: String| format!(", line {number}: {why}");
        let Some(listed) = parse_line(line).map_err(wrong)? else { continue };
        if list.len() == MAX_DEVICES {
            return Err(wrong(format!("a session serves at most {MAX_DEVICES} devices")));
        }
        list.add(listed).map_err(|e| wrong(e.to_string()))?;
    }
    if list.is_empty() { Err(" lists no device; write one name a line".to_owned()) } else { Ok(list) }
}

/// A line of the list; nothing for an empty one or a comment.
fn parse_line(line: &str) -> Result<Option<Listed>, String> {
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    let Some(name) = words.next() else { return Ok(None) };
    let key = words.next().map(DeviceKey::from_line).transpose().map_err(|e| e.to_string())?;
    if words.next().is_some() {
        return Err("write a name, or a name and a key, and no more".to_owned());
    }
    let name = parse_name(name).map_err(|e| format!("the name is unusable: {e}"))?;
    Ok(Some(Listed { device: DeviceIdentity::named(&name).device, name, key }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> DeviceKey {
        DeviceKey([n; 32])
    }

    #[test]
    fn names_and_keys() {
        let text = format!("# the lab\n\nlab-1\n  lab#2\t{}  # new disk\r\nlab-3 #\n", key(2).line());
        let list = parse(&text).unwrap();
        let listed: Vec<_> = list.iter().map(|listed| (listed.name.as_str(), listed.key)).collect();
        assert_eq!(listed, [("lab-1", None), ("lab#2", Some(key(2))), ("lab-3", None)]);
        // A device that was started with --id has the same identifier.
        assert_eq!(list.named("lab-1").unwrap().device, DeviceIdentity::named("lab-1").device);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let (line, other) = (key(1).line(), mcp_transfer::units::SenderKey([1; 32]).line());
        for (text, says) in [
            (String::new(), " lists no device"),
            ("# nobody\n\n".into(), " lists no device"),
            ("a\nb\na\n".into(), ", line 3: the name \"a\" is there already"),
            (format!("a {line}\nb {line}\n"), ", line 2: the key is that of \"a\" already"),
            (format!("a\nb {line} c\n"), ", line 2: write a name, or a name and a key"),
            ("\na key\n".into(), ", line 2: this is no device's key"),
            (format!("a {other}"), ", line 1: this is no device's key"),
            (format!("a {}", &line[..50]), ", line 1: this device's key is cut short"),
            (format!("a\n{}", "x".repeat(65)), ", line 2: the name is unusable: write 1 to 64"),
            ("a\u{7}".into(), ", line 1: the name is unusable"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(says), "{text:?}: {error}");
        }
        let many: String = (0..=MAX_DEVICES).map(|n| format!("d{n}\n")).collect();
        assert!(parse(&many).unwrap_err().contains("line 16385: a session serves at most 16384"));
        assert!(matches!(read(Path::new("/no/such/list")), Err(Error::Environment(_))));
    }
}
