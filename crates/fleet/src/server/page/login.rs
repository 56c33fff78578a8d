//! Who looks at the page. An operator's key makes a link (`mcp operator link`); the link logs a browser in once; the browser
//! has a session from then on, in a cookie that no script reads and no other site's request carries.
//!
//! A request that changes something also says where it comes from (`Sec-Fetch-Site`, `Origin`), and has the session's own
//! word in its form, so that no other site can make a browser send it.

use super::super::auth::{self, client, read_body};
use super::super::error::ApiError;
use super::super::{App, clock, requests, state_dir};
use super::{PageResult, Refusal, audited, html};
use crate::limits::{LOGIN_VALIDITY, MAX_FORM, MAX_TOKEN};
use crate::store::{Operator, OperatorRole};
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::Markup;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The session's cookie. Its prefix makes browsers take it from this host alone, over TLS.
const COOKIE: &str = "__Host-mcp";

/// Whoever is logged in.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) operator: Operator,
    pub(super) address: IpAddr,
    /// What forms of this session say.
    pub(super) word: String,
    /// BLAKE3 of the session's token.
    pub(super) session: blake3::Hash,
}

impl Viewer {
    /// Whether the operator may change tasks and devices.
    pub(super) fn acts(&self) -> bool {
        self.operator.role >= OperatorRole::Operate
    }
}

impl FromRequestParts<App> for Viewer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> PageResult<Self> {
        own_origin(app, parts)?;
        let token = cookie(&parts.headers).ok_or(Refusal::Login)?;
        let session = blake3::hash(token.as_bytes());
        let operator = app.store.logged_in(session, clock::now()).await?.ok_or(Refusal::Login)?;
        requests::by_operator(&operator.name);
        Ok(Self { operator, address: client(app, parts)?, word: word(token), session })
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token).filter(|token| token.len() <= MAX_TOKEN)
}

/// What the forms of a session say. Nobody can tell it without the session's token.
fn word(token: &str) -> String {
    blake3::Hash::from_bytes(blake3::derive_key(
        "mcp 2026-11-23 forms of the server's page v1",
        token.as_bytes(),
    ))
    .to_string()
}

/// `https://HOST:PORT`, as the browser asked for it.
fn own_origin(app: &App, parts: &Parts) -> PageResult<String> {
    let peer = auth::peer(parts)?;
    let trusted = app.config.trusted_proxies.contains(&peer.address.ip().to_canonical());
    let (origin, secure) = auth::origin(&parts.headers, peer, trusted);
    if secure { Ok(origin) } else { Err(Refusal::Plain) }
}

/// Refuses a request that a page of another site sent.
fn from_here(headers: &HeaderMap, origin: &str) -> PageResult<()> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let from = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    let good = site.is_none_or(|site| site == b"same-origin")
        && from.is_none_or(|from| from.eq_ignore_ascii_case(origin.as_bytes()))
        && (site.is_some() || from.is_some());
    if good { Ok(()) } else { Err(forged()) }
}

fn forged() -> Refusal {
    let why = "This request did not come from this page. Go back, load the page again, and try again.";
    ApiError::coded(StatusCode::FORBIDDEN, "mcp.page", why).into()
}

fn fields(body: &Bytes) -> BTreeMap<String, String> {
    form_urlencoded::parse(body).into_owned().collect()
}

/// Who acts, and what their form says. Checked: that they are logged in and may, and that their own page sent it.
pub(super) async fn acting(
    app: &App,
    request: Request,
    role: OperatorRole,
) -> PageResult<(Viewer, BTreeMap<String, String>)> {
    let (mut parts, body) = request.into_parts();
    let form = fields(&read_body(body, MAX_FORM).await?);
    from_here(&parts.headers, &own_origin(app, &parts)?)?;
    let viewer = Viewer::from_request_parts(&mut parts, app).await?;
    // Comparing two values of `blake3::Hash` takes constant time.
    let same = |text: &String| blake3::hash(text.as_bytes()) == blake3::hash(viewer.word.as_bytes());
    if !form.get("word").is_some_and(same) {
        return Err(forged());
    }
    if viewer.operator.role < role {
        let why = format!(
            "Operator {} may only {}; this needs {}.",
            viewer.operator.name,
            viewer.operator.role.as_str(),
            role.as_str()
        );
        return Err(ApiError::coded(StatusCode::FORBIDDEN, "mcp.role", why).into());
    }
    Ok((viewer, form))
}

pub(super) async fn form(State(app): State<App>, request: Request) -> PageResult<Markup> {
    let (parts, _) = request.into_parts();
    own_origin(&app, &parts)?;
    Ok(html::login("", false))
}

/// The form with the link's token in it. Only its button uses the link up: programs that look at links before people do not.
pub(super) async fn form_with(
    State(app): State<App>,
    Path(token): Path<String>,
    request: Request,
) -> PageResult<Markup> {
    let (parts, _) = request.into_parts();
    own_origin(&app, &parts)?;
    Ok(html::login(&token, false))
}

/// Logs in.
pub(super) async fn enter(State(app): State<App>, request: Request) -> PageResult {
    let (parts, body) = request.into_parts();
    let form = fields(&read_body(body, MAX_FORM).await?);
    from_here(&parts.headers, &own_origin(&app, &parts)?)?;
    let given = form.get("token").map_or("", |text| text.trim());
    // People also paste the whole link.
    let given = given.rsplit('/').next().unwrap_or_default();
    let address = client(&app, &parts)?;
    let now = clock::now();
    let session = state_dir::new_token().map_err(|_| ApiError::later(30))?;
    let hashes = [given, session.as_str()].map(|token| blake3::hash(token.as_bytes()));
    let found = app.store.log_in(hashes[0], hashes[1], (now, now + LOGIN_VALIDITY.as_secs())).await?;
    let wrong = || ApiError::bare(StatusCode::UNAUTHORIZED);
    let operator = match app.counted(address, found.ok_or_else(wrong)) {
        Ok(operator) => operator,
        Err(error) if error.is_unauthorized() => {
            return Ok((StatusCode::UNAUTHORIZED, html::login("", true)).into_response());
        }
        Err(error) => return Err(error.into()),
    };
    let viewer = Viewer { operator, address, word: String::new(), session: hashes[1] };
    audited(&app, &viewer, "log in", &viewer.operator.name).noted().await?;
    with_cookie(&session, LOGIN_VALIDITY.as_secs(), "/")
}

/// Logs out.
pub(super) async fn leave(State(app): State<App>, request: Request) -> PageResult {
    let (viewer, _) = acting(&app, request, OperatorRole::Read).await?;
    audited(&app, &viewer, "log out", &viewer.operator.name).log_out(viewer.session).await?;
    with_cookie("", 0, "/login")
}

fn with_cookie(token: &str, seconds: u64, to: &str) -> PageResult {
    let text = format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
    let value = HeaderValue::from_str(&text).map_err(|_| ApiError::later(30))?;
    let mut response: Response = Redirect::to(to).into_response();
    response.headers_mut().insert(header::SET_COOKIE, value);
    Ok(response)
}
