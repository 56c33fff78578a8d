//! `docs/http-api.md` names every request that operators and agents of ours can make, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const OURS: &str = "/mcp/v1";
const MANAGE: &str = "/mcp/v1/manage";

type Requests = BTreeSet<(String, String)>;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path, whatever its parameters are called.
fn shape(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let segment = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The requests that the routes of a source file take, below `base`. A route with `{change}` takes the words that `changes`
/// has as arms of a match.
fn routes(source: &str, base: &str, changes: impl Fn(&str) -> Vec<String>) -> Requests {
    let mut found = Requests::new();
    for route in source.split(".route(\"").skip(1) {
        let (path, handlers) = route.split_once("\", ").expect("a path and handlers");
        let handlers = handlers.split("\n    ").next().expect("a line");
        let paths = match path.strip_suffix("{change}") {
            Some(begin) => changes(begin).iter().map(|change| format!("{begin}{change}")).collect(),
            None => vec![path.to_owned()],
        };
        for method in ["get", "post", "put", "delete"] {
            let call = format!("{method}(");
            if handlers.starts_with(&call) || handlers.contains(&format!(".{call}")) {
                let request = |path: &String| (method.to_uppercase(), shape(&format!("{base}{path}")));
                found.extend(paths.iter().map(request));
            }
        }
    }
    found
}

/// The words of a match's arms: `"pause" => ...`.
fn arms(source: &str) -> Vec<String> {
    let arm = |line: &str| {
        let (word, _) = line.trim().strip_prefix('"')?.split_once("\" =>")?;
        Some(word.to_owned())
    };
    source.lines().filter_map(arm).collect()
}

/// The requests in the first column of the tables of a part of the document: `GET /tasks`, or `PUT` and then a path; a path
/// that follows another one differs from it in its end.
fn documented(part: &str, base: &str) -> Requests {
    let mut found = Requests::new();
    for row in part.lines().filter_map(|line| line.strip_prefix("| ")).filter(|row| row.starts_with('`')) {
        let cell = row.split(" | ").next().expect("a cell");
        let (mut methods, mut waiting, mut last) = (Vec::new(), Vec::new(), String::new());
        for span in cell.split('`').skip(1).step_by(2) {
            let (method, path) =
                span.split_once(' ').unwrap_or(if span.starts_with('/') { ("", span) } else { (span, "") });
            if !matches!(method, "" | "GET" | "HEAD" | "POST" | "PUT" | "DELETE") {
                continue;
            }
            if !method.is_empty() {
                waiting.push(method.to_owned());
            }
            if path.is_empty() {
                continue;
            }
            last = match (waiting.is_empty(), last.rsplit_once('/')) {
                (true, Some((begin, _))) => format!("{begin}{path}"),
                _ => path.to_owned(),
            };
            if !waiting.is_empty() {
                methods = std::mem::take(&mut waiting);
            }
            // What answers GET answers HEAD.
            let asked = methods.iter().filter(|method| *method != "HEAD");
            found.extend(asked.map(|method| (method.clone(), shape(&format!("{base}{last}")))));
        }
        assert!(waiting.is_empty() && !methods.is_empty(), "no request in {cell}");
    }
    found
}

/// The requests that operators and agents of ours can make.
pub(super) fn all_routes() -> Requests {
    let changes = |begin: &str| match begin {
        "/tasks/{task}/" => arms(&read("src/server/manage/tasks.rs")),
        "/devices/{device}/" => arms(&read("src/server/manage/devices.rs")),
        other => panic!("{other}"),
    };
    let manage = routes(&read("src/server/manage/mod.rs"), MANAGE, changes);
    assert!(manage.len() > 25, "{manage:#?}");
    let ours = routes(&read("src/server/ours.rs"), OURS, |_| Vec::new());
    assert!(ours.len() > 8, "{ours:#?}");
    manage.into_iter().chain(ours).collect()
}

#[test]
fn the_document_and_the_routes_have_the_same_requests() {
    let document = read("../../docs/http-api.md");
    let part = |heading: &str| {
        let begin = document.split(&format!("\n## {heading}\n")).nth(1).expect("a heading");
        begin.split("\n## ").next().expect("a part").to_owned()
    };
    let told = documented(&part("Operators"), MANAGE).into_iter().chain(documented(&part("Our agents"), ""));
    assert_eq!(told.collect::<Requests>(), all_routes());
}
