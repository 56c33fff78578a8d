//! Any text as a manifest, and any values as the arguments of a task for it: the body of a fuzz target.

use super::arguments::{Argument, Values, check};
use super::manifest::Manifest;
use super::message::OBJECT;
use crate::fuzzing::quiet;
use crate::limits::{MAX_ARGUMENT, MAX_MANIFEST, MAX_TIMEOUT_S, MAX_WORDS};
use serde_json::Value;
use std::collections::BTreeMap;

/// The body of the fuzz target `handler_manifest`. The input is a manifest; behind a line of `%%`, the arguments as JSON.
///
/// # Panics
/// If a manifest gives more than it may, or a value gets where it must not.
pub fn fuzz_handler_manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.len() as u64 > MAX_MANIFEST {
        return;
    }
    let (text, values) = text.split_once("\n%%\n").unwrap_or((&text, "{}"));
    let manifest = match Manifest::parse("x", text) {
        Ok(manifest) => manifest,
        Err(wrong) => {
            quiet(&wrong.why);
            assert!((1..=1 + text.matches('\n').count()).contains(&wrong.line(text)), "{wrong:?}");
            return;
        }
    };
    let commands = [Some(&manifest.run), manifest.check.as_ref(), manifest.rollback.as_ref()];
    for command in commands.into_iter().flatten() {
        assert!(command.timeout.as_secs() <= MAX_TIMEOUT_S && command.args.len() <= MAX_WORDS);
    }
    assert!(manifest.environment.len() <= MAX_WORDS);
    assert!(manifest.environment.keys().all(|name| !name.is_empty() && !name.contains(['=', '\0'])));
    let values: Values = serde_json::from_str(values).unwrap_or_default();
    for (name, value) in &values {
        if let Some(argument) = manifest.arguments.get(name) {
            one(name, argument, value);
        }
    }
    let checked = match manifest.check_arguments(&values) {
        Ok(checked) => checked,
        Err(why) => return quiet(&why),
    };
    assert!(checked.keys().eq(manifest.arguments.keys()));
    let args = commands.into_iter().flatten().flat_map(|command| &command.args);
    for template in args.chain(manifest.environment.values()) {
        let Some(word) = template.fill(&checked) else { continue };
        // What stands for the object is there only where the manifest has it.
        let word = word.replace(OBJECT, if template.has_object() { "" } else { OBJECT });
        assert!(!word.chars().any(char::is_control), "{word:?}");
    }
}

/// A value is taken as it is or refused, and what is taken satisfies its description.
fn one(name: &str, argument: &Argument, value: &Value) {
    let allowed = BTreeMap::from([(name.to_owned(), argument.clone())]);
    let values = Values::from([(name.to_owned(), value.clone())]);
    let taken = match check(&allowed, &values) {
        Ok(mut taken) => taken.remove(name).flatten(),
        Err(_) => return,
    };
    let same = |text: &Option<String>| text.as_deref() == value.as_str();
    match argument {
        Argument::String { max_length, may_begin_with_dash, .. } => {
            let text = taken.as_deref().unwrap_or_default();
            assert!(same(&taken) && text.len() <= *max_length && text.len() <= MAX_ARGUMENT);
            assert!(*may_begin_with_dash || !text.starts_with('-'), "{text:?}");
        }
        Argument::Integer { min, max, .. } => {
            let number: i64 = taken.as_deref().unwrap_or_default().parse().expect("a number");
            assert!((*min..=*max).contains(&number) && value.as_i64() == Some(number));
        }
        Argument::Boolean { when_true, .. } => {
            assert_eq!(taken.as_ref(), value.as_bool().unwrap_or(false).then_some(when_true));
        }
        Argument::Choice { choices, .. } => {
            assert!(same(&taken) && taken.is_some_and(|text| choices.contains(&text)));
        }
        Argument::Path { below, .. } => {
            let text = taken.as_deref().unwrap_or_default();
            assert!(same(&taken) && text.starts_with('/') && text.len() <= MAX_ARGUMENT, "{text:?}");
            assert!(!text.split('/').any(|part| matches!(part, "." | "..")), "{text:?}");
            assert!(std::path::Path::new(text).starts_with(below), "{text:?}");
        }
    }
}
