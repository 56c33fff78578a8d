//! Enrolment lines, operators, roots, and the audit trail.

use super::super::error::{ApiError, ApiResult};
use super::super::ours::public_key;
use super::super::{App, clock, state_dir};
use super::views::{EnrolmentRequest, EnrolmentResponse, LinkResponse, OperatorRequest};
use super::{done, json, signed};
use crate::documents::{Envelope, Root, Trusted};
use crate::limits::{LINK_VALIDITY, MAX_NAME};
use crate::store::{LineKind, NewLine, Operator, OperatorRole};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;

pub(super) async fn lines(State(app): State<App>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Admin).await?;
    json(&app.store.lines().await?)
}

/// A link that logs the operator in once.
pub(super) async fn new_link(State(app): State<App>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Read).await?;
    let token = state_dir::new_token().map_err(|_| ApiError::later(30))?;
    let expires = clock::now() + LINK_VALIDITY.as_secs();
    let store = signed.store(&app, "make link of operator", &signed.operator.name);
    store.add_link(blake3::hash(token.as_bytes()), &signed.operator.public_key, expires).await?;
    json(&LinkResponse { path: format!("/login/{}", *token), expires })
}

pub(super) async fn new_line(State(app): State<App>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Admin).await?;
    let asked: EnrolmentRequest = signed.json()?;
    let short = |text: &String| text.len() <= MAX_NAME && !text.contains(char::is_control);
    if !short(&asked.label) || asked.tags.len() > 16 || !asked.tags.iter().all(short) {
        return Err(ApiError::unreadable(
            "label and tags have at most 128 characters, and there are at most 16 tags",
        ));
    }
    let token = state_dir::new_token().map_err(|_| ApiError::later(30))?;
    let line = match asked.kind {
        LineKind::Gateway => token.clone(),
        LineKind::Line => app.line(&token).ok_or_else(|| {
            ApiError::coded(
                StatusCode::CONFLICT,
                "mcp.enrolment",
                "no line can say this server's address; set --name",
            )
        })?,
    };
    let now = clock::now();
    let new = NewLine {
        kind: asked.kind,
        label: asked.label,
        token: blake3::hash(token.as_bytes()),
        uses: asked.uses,
        expires: now.saturating_add(asked.valid),
        tags: asked.tags,
        accepts: asked.accepts,
        by: signed.operator.name.clone(),
    };
    let id = app.store.add_line(new, now).await?;
    signed.audit(&app, "new enrolment line", &id.to_string()).await?;
    json(&EnrolmentResponse { id, line: line.to_string() })
}

pub(super) async fn revoke(State(app): State<App>, Path(id): Path<i64>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Admin).await?;
    signed.store(&app, "revoke enrolment line", &id.to_string()).revoke_line(id).await?;
    done()
}

pub(super) async fn operators(State(app): State<App>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    json(&app.store.operators().await?)
}

pub(super) async fn put_operator(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Admin).await?;
    let OperatorRequest { key, role } = signed.json()?;
    if name.is_empty()
        || name.len() > MAX_NAME
        || name.contains(|c: char| c.is_control() || c.is_whitespace())
    {
        return Err(ApiError::unreadable("an operator's name has 1 to 128 characters without blanks"));
    }
    let public_key = public_key(&key)?.to_string();
    let operator = Operator { name: name.clone(), public_key, role, created: clock::now() };
    let subject = format!("{name} ({})", role.as_str());
    signed.store(&app, "name operator", &subject).put_operator(operator).await?;
    done()
}

pub(super) async fn remove_operator(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Admin).await?;
    signed.store(&app, "remove operator", &name).remove_operator(&name).await?;
    done()
}

/// The newest root, in base64url.
pub(super) async fn newest_root(State(app): State<App>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    let newest = app.store.newest_root().await?;
    let bytes = app.store.root(newest).await?.ok_or_else(|| ApiError::no_such("root"))?;
    let envelope = Envelope::parse(&bytes).map_err(ApiError::unreadable)?;
    json(&std::collections::BTreeMap::from([("envelope", envelope.to_metadata())]))
}

/// Takes the next root, by the rules that devices have.
pub(super) async fn add_root(State(app): State<App>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Admin).await?;
    let bad = |why: String| ApiError::coded(StatusCode::BAD_REQUEST, "mcp.root", why);
    let envelope = Envelope::parse(&signed.body).map_err(|why| bad(why.to_string()))?;
    let mut chain = Vec::new();
    for version in 1..=app.store.newest_root().await? {
        let bytes = app.store.root(version).await?.ok_or_else(|| ApiError::no_such("root"))?;
        chain.push(Envelope::parse(&bytes).map_err(|why| bad(why.to_string()))?);
    }
    let Some((first, later)) = chain.split_first() else { return Err(ApiError::no_such("root")) };
    let mut trusted =
        Trusted::begin(app.fleet, "server", app.root_hash, first).map_err(|why| bad(why.to_string()))?;
    // One at a time: a server may walk more steps than a device takes in one go.
    for root in later.iter().chain([&envelope]) {
        trusted = trusted.take_roots(std::slice::from_ref(root), 0).map_err(|why| bad(why.to_string()))?;
    }
    let root = Root::parse(envelope.payload()).map_err(|why| bad(why.to_string()))?;
    if root.expires <= clock::now() {
        return Err(bad("the root has expired".into()));
    }
    if !root.lists.keys.contains(&app.lists.public()) {
        return Err(bad(
            "the root does not list this server's key for lists; devices would refuse its lists".into(),
        ));
    }
    let store = signed.store(&app, "publish root", &root.version.to_string());
    store.add_root(root.version, envelope.to_bytes()).await?;
    done()
}

/// The newest 1000 entries, newest first.
pub(super) async fn trail(State(app): State<App>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    json(&app.store.audit_trail(1000).await?)
}
