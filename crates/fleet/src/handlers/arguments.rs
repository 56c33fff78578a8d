//! Typed arguments of a handler: what its manifest allows, and how they get into its command line.
//!
//! A value becomes a part of one argument or of one environment variable. It is never split, and no shell sees it.

use regex_lite::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::message::OBJECT;
use crate::limits::MAX_ARGUMENT;

fn longest() -> usize {
    255
}

/// An argument as the manifest describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(super) enum Argument {
    String {
        /// The whole value must match.
        pattern: String,
        #[serde(default)]
        min_length: usize,
        #[serde(default = "longest")]
        max_length: usize,
        #[serde(default)]
        may_begin_with_dash: bool,
        default: Option<String>,
        #[serde(default)]
        optional: bool,
    },
    Integer {
        min: i64,
        max: i64,
        default: Option<i64>,
        #[serde(default)]
        optional: bool,
    },
    Boolean {
        /// What stands in its place if it is true; nothing does if it is false.
        when_true: String,
        #[serde(default)]
        default: bool,
    },
    Choice {
        choices: Vec<String>,
        default: Option<String>,
        #[serde(default)]
        optional: bool,
    },
    Path {
        /// The directory that it must be below.
        below: PathBuf,
        /// If set, the part below the directory must match as a whole.
        pattern: Option<String>,
        default: Option<String>,
        #[serde(default)]
        optional: bool,
    },
}

/// The values that a task gives.
pub type Values = BTreeMap<String, Value>;

/// Checked values as text; `None` leaves out the argument that it stands in.
pub(super) type Checked = BTreeMap<String, Option<String>>;

impl Argument {
    /// Whether the description makes sense: one clause for people, if not.
    pub fn validate(&self) -> Result<(), String> {
        match self {
            Argument::String { pattern, min_length, max_length, .. } => {
                whole(pattern)?;
                if min_length > max_length || *max_length > MAX_ARGUMENT {
                    return Err(format!("lengths must rise and end at {MAX_ARGUMENT}; correct them"));
                }
            }
            Argument::Integer { min, max, .. } if min > max => {
                return Err("min is above max; swap them".into());
            }
            Argument::Choice { choices, .. } if choices.is_empty() => {
                return Err("choices is empty; name some".into());
            }
            Argument::Path { below, pattern, .. } => {
                if let Some(pattern) = pattern {
                    whole(pattern)?;
                }
                if !below.is_absolute() || below.components().any(|c| c == Component::ParentDir) {
                    return Err("below must be an absolute path without '..'; write it out".into());
                }
            }
            Argument::Boolean { when_true, .. } if when_true.chars().any(char::is_control) => {
                return Err("when-true has a control character; remove it".into());
            }
            Argument::Integer { .. } | Argument::Choice { .. } | Argument::Boolean { .. } => {}
        }
        match self.default() {
            Some(default) => self.check(&default).map(drop).map_err(|why| format!("its default {why}")),
            None => Ok(()),
        }
    }

    fn default(&self) -> Option<Value> {
        match self {
            Argument::String { default, .. }
            | Argument::Choice { default, .. }
            | Argument::Path { default, .. } => default.clone().map(Value::from),
            Argument::Integer { default, .. } => default.map(Value::from),
            Argument::Boolean { default, .. } => Some(Value::from(*default)),
        }
    }

    fn is_optional(&self) -> bool {
        match *self {
            Argument::String { optional, .. }
            | Argument::Integer { optional, .. }
            | Argument::Choice { optional, .. }
            | Argument::Path { optional, .. } => optional,
            Argument::Boolean { .. } => true,
        }
    }

    /// The text of a value that is allowed.
    fn check(&self, value: &Value) -> Result<Option<String>, String> {
        let string = || {
            let text = value.as_str().ok_or("must be a string")?;
            // A value is never a line, a NUL or something that a terminal obeys.
            if text.chars().any(char::is_control) { Err("has a control character") } else { Ok(text) }
        };
        match self {
            Argument::String { pattern, min_length, max_length, may_begin_with_dash, .. } => {
                let text = string()?;
                if !(*min_length..=*max_length).contains(&text.len()) {
                    return Err(format!("must have {min_length} to {max_length} bytes"));
                }
                if text.starts_with('-') && !may_begin_with_dash {
                    return Err("begins with a dash".into());
                }
                if !whole(pattern)?.is_match(text) {
                    return Err(format!("does not match {pattern}"));
                }
                Ok(Some(text.to_owned()))
            }
            Argument::Integer { min, max, .. } => match value.as_i64() {
                Some(number) if (*min..=*max).contains(&number) => Ok(Some(number.to_string())),
                _ => Err(format!("must be a number from {min} to {max}")),
            },
            Argument::Boolean { when_true, .. } => match value.as_bool() {
                Some(yes) => Ok(yes.then(|| when_true.clone())),
                None => Err("must be true or false".into()),
            },
            Argument::Choice { choices, .. } => {
                let text = string()?;
                if choices.iter().any(|choice| choice == text) {
                    Ok(Some(text.to_owned()))
                } else {
                    Err(format!("must be one of {}", choices.join(", ")))
                }
            }
            Argument::Path { below, pattern, .. } => path(string()?, below, pattern.as_deref()).map(Some),
        }
    }
}

/// An absolute path below a directory, without a component that leads elsewhere.
fn path(text: &str, below: &Path, pattern: Option<&str>) -> Result<String, String> {
    if text.len() > MAX_ARGUMENT {
        return Err(format!("must have at most {MAX_ARGUMENT} bytes"));
    }
    let outside = || format!("must be a path below {}", below.display());
    if text.split('/').any(|component| component == "." || component == "..") || text.contains("//") {
        return Err(outside());
    }
    let rest = Path::new(text).strip_prefix(below).map_err(|_| outside())?;
    let rest = rest.to_str().filter(|rest| !rest.is_empty()).ok_or_else(outside)?;
    match pattern {
        Some(pattern) if !whole(pattern)?.is_match(rest) => Err(format!("does not match {pattern}")),
        _ => Ok(text.to_owned()),
    }
}

/// A pattern for whole values.
fn whole(pattern: &str) -> Result<Regex, String> {
    // Linear in the value, and bounded in what the pattern may grow to.
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|e| format!("the pattern {pattern} is wrong ({e}); correct it"))
}

/// Checks a task's values against what the manifest allows: every argument has one and no other is there.
pub(super) fn check(allowed: &BTreeMap<String, Argument>, values: &Values) -> Result<Checked, String> {
    if let Some(name) = values.keys().find(|name| !allowed.contains_key(*name)) {
        let known: Vec<&str> = allowed.keys().map(String::as_str).collect();
        let name = mcp_transfer::text::escape(name);
        return Err(format!("it has no argument {name}; it has {}", known.join(", ")));
    }
    let mut checked = Checked::new();
    for (name, argument) in allowed {
        let value = match values.get(name).cloned().or_else(|| argument.default()) {
            Some(value) => argument.check(&value).map_err(|why| format!("its argument {name} {why}"))?,
            None if argument.is_optional() => None,
            None => return Err(format!("its argument {name} is missing; add it to the task")),
        };
        checked.insert(name.clone(), value);
    }
    Ok(checked)
}

/// A template: text with `{object}` and `{arg.NAME}` in it. `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Object,
    Argument(String),
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = vec![Piece::Text(String::new())];
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("{{").or(rest.strip_prefix("}}")) {
                push(&mut pieces, c);
                rest = after;
            } else if c == '{' {
                let (name, after) =
                    rest[1..].split_once('}').ok_or("a '{' is not closed; write '{{' for a brace")?;
                pieces.push(match name.strip_prefix("arg.") {
                    Some(name) => Piece::Argument(name.to_owned()),
                    None if name == "object" => Piece::Object,
                    None => return Err(format!("there is no {{{name}}}; use {{object}} or {{arg.NAME}}")),
                });
                rest = after;
            } else if c == '}' || c.is_control() {
                return Err("a '}' or a control character stands alone; write '}}' for a brace".into());
            } else {
                push(&mut pieces, c);
                rest = &rest[c.len_utf8()..];
            }
        }
        Ok(Self(pieces))
    }

    /// The arguments that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Argument(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it names the object.
    pub fn has_object(&self) -> bool {
        self.0.contains(&Piece::Object)
    }

    /// The text with these values; `None` if one of them is left out.
    pub fn fill(&self, values: &Checked) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(more) => text.push_str(more),
                Piece::Object => text.push_str(OBJECT),
                Piece::Argument(name) => text.push_str(values.get(name)?.as_deref()?),
            }
        }
        Some(text)
    }
}

fn push(pieces: &mut Vec<Piece>, c: char) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push(c),
        _ => pieces.push(Piece::Text(c.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn allowed() -> BTreeMap<String, Argument> {
        let text = r#"
            name = { type = "string", pattern = "[a-z-]+" }
            option = { type = "string", pattern = ".*", may-begin-with-dash = true, optional = true }
            count = { type = "integer", min = 1, max = 9, default = 3 }
            purge = { type = "boolean", when-true = "--purge" }
            mode = { type = "choice", choices = ["fast", "safe"], optional = true }
            to = { type = "path", below = "/srv/data", optional = true }
        "#;
        let allowed: BTreeMap<String, Argument> = toml::from_str(text).unwrap();
        for argument in allowed.values() {
            argument.validate().unwrap();
        }
        allowed
    }

    fn one(name: &str, value: Value) -> Result<Option<String>, String> {
        let mut values = Values::from([("name".to_owned(), json!("x"))]);
        values.insert(name.to_owned(), value);
        check(&allowed(), &values).map(|mut checked| checked.remove(name).unwrap())
    }

    #[test]
    fn what_is_allowed_passes() {
        let text = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(one("name", json!("editor")), text("editor"));
        assert_eq!(one("option", json!("--yes $(id) `id` ;|&")), text("--yes $(id) `id` ;|&"));
        assert_eq!((one("count", json!(9)), one("mode", json!("safe"))), (text("9"), text("safe")));
        assert_eq!((one("purge", json!(true)), one("purge", json!(false))), (text("--purge"), Ok(None)));
        assert_eq!(one("to", json!("/srv/data/a b/-c")), text("/srv/data/a b/-c"));
        let all = check(&allowed(), &Values::from([("name".to_owned(), json!("x"))])).unwrap();
        assert_eq!((all["count"].as_deref(), all["to"].as_deref()), (Some("3"), None));
    }

    #[test]
    fn everything_else_is_refused() {
        for (name, value) in [
            ("name", json!("--install")),
            ("name", json!("-")),
            ("name", json!("a\nb")),
            ("name", json!("a\0b")),
            ("name", json!("$(id)")),
            ("name", json!("a/../b")),
            ("name", json!("a\nrm")),
            ("name", json!("")),
            ("name", json!("x".repeat(256))),
            ("name", json!(7)),
            ("name", json!(["a"])),
            ("name", Value::Null),
            ("option", json!("a\u{1b}[2J")),
            ("count", json!(0)),
            ("count", json!(10)),
            ("count", json!(2.5)),
            ("count", json!("3")),
            ("count", json!(u64::MAX)),
            ("purge", json!("true")),
            ("mode", json!("faster")),
            ("to", json!("/srv/data")),
            ("to", json!("/srv/data/")),
            ("to", json!("/srv/data/../../etc/passwd")),
            ("to", json!("/srv/data/./x")),
            ("to", json!("/srv/database")),
            ("to", json!("/srv/data//x")),
            ("to", json!("srv/data/x")),
            ("to", json!("/etc/passwd")),
            ("to", json!("-/srv/data/x")),
            ("to", json!("/srv/data/x\n")),
            ("other", json!("x")),
        ] {
            let why = one(name, value.clone()).unwrap_err();
            assert!(why.contains(name), "{name} {value}: {why}");
        }
        assert!(check(&allowed(), &Values::new()).unwrap_err().contains("name is missing"));
    }

    #[test]
    fn descriptions_that_make_no_sense_are_refused() {
        for text in [
            r#"a = { type = "string", pattern = "(" }"#,
            r#"a = { type = "string", pattern = "a", min-length = 9, max-length = 3 }"#,
            r#"a = { type = "string", pattern = "a", default = "b" }"#,
            r#"a = { type = "integer", min = 3, max = 1 }"#,
            r#"a = { type = "choice", choices = [] }"#,
            r#"a = { type = "boolean", when-true = "a\u0000b" }"#,
            r#"a = { type = "path", below = "srv" }"#,
            r#"a = { type = "path", below = "/srv/../etc" }"#,
        ] {
            let arguments: BTreeMap<String, Argument> = toml::from_str(text).unwrap();
            arguments["a"].validate().unwrap_err();
        }
        for text in [
            r#"a = { type = "string" }"#,
            r#"a = { type = "string", pattern = "a", patern = "b" }"#,
            r#"a = { type = "anything" }"#,
        ] {
            toml::from_str::<BTreeMap<String, Argument>>(text).unwrap_err();
        }
    }

    #[test]
    fn templates_are_filled_and_never_split() {
        let values = Checked::from([("a".into(), Some("x y; {arg.b} $z".into())), ("b".into(), None)]);
        let fill = |text| Template::parse(text).unwrap().fill(&values);
        assert_eq!(fill("--to={arg.a}/{{}}é").as_deref(), Some("--to=x y; {arg.b} $z/{}é"));
        assert_eq!((fill("{object}").as_deref(), fill("--b={arg.b}")), (Some(OBJECT), None));
        for wrong in ["{", "}", "{arg}", "{x}", "a\nb"] {
            Template::parse(wrong).unwrap_err();
        }
    }
}
