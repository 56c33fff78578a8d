//! Which device asks. Tokens are compared by their hashes, in constant time.

use super::error::{ApiError, ApiResult};
use super::listen::Peer;
use super::{App, Shared, clock, requests};
use crate::limits::{BODY_PATIENCE, MAX_CONTROLLER_ID, MAX_PENDING_DEVICES, MAX_TOKEN};
use crate::store::{Device, DeviceState};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The device that asks, authenticated and not refused.
#[derive(Debug)]
pub(super) struct Caller {
    /// The device.
    pub device: Device,
    /// The start of links: `https://HOST:PORT`.
    pub origin: String,
    /// The same, with the tenant and the device: the base of the device interface.
    pub base: String,
    /// Whether the device asked over an encrypted connection.
    pub secure: bool,
    /// The address that it asked from.
    pub client: IpAddr,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let Path(path) = Path::<BTreeMap<String, String>>::from_request_parts(parts, app)
            .await
            .map_err(|_| ApiError::not_found())?;
        let id = path.get("device").cloned().unwrap_or_default();
        let blank = |c: char| c.is_whitespace() || c.is_control();
        if id.is_empty() || id.chars().count() > MAX_CONTROLLER_ID || id.contains(blank) {
            return Err(ApiError::bare(StatusCode::UNAUTHORIZED));
        }
        let tenant = path.get("tenant").map_or("DEFAULT", String::as_str);
        if !tenant.eq_ignore_ascii_case("DEFAULT") {
            return Err(ApiError::bare(StatusCode::UNAUTHORIZED));
        }
        let peer = peer(parts)?;
        let trusted = app.config.trusted_proxies.contains(&peer.address.ip().to_canonical());
        let client = client(app, parts)?;
        let device = app.counted(client, authenticate(app, &parts.headers, &id, trusted).await)?;
        requests::by_device(&device.id);
        if device.state == DeviceState::Refused {
            return Err(ApiError::bare(StatusCode::FORBIDDEN));
        }
        if app.requests.take(device.id.clone(), Instant::now()).is_err() {
            return Err(ApiError::bare(StatusCode::TOO_MANY_REQUESTS));
        }
        app.saw(&device.id, client);
        let (origin, secure) = origin(&parts.headers, peer, trusted);
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, SEGMENT).to_string();
        let base = format!("{origin}/{}/controller/v1/{}", encode(tenant), encode(&device.id));
        Ok(Self { device, origin, base, secure, client })
    }
}

/// What a segment of a path is encoded with.
pub(super) const SEGMENT: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn peer(parts: &Parts) -> ApiResult<Peer> {
    // Every connection of `listen` has one.
    parts.extensions.get().copied().ok_or_else(|| ApiError::bare(StatusCode::INTERNAL_SERVER_ERROR))
}

/// The address that a request comes from. Behind trusted proxies it is the last one of `X-Forwarded-For` that is none of theirs: what
/// stands before it is the client's own word.
pub(super) fn client(app: &App, parts: &Parts) -> ApiResult<IpAddr> {
    let peer = peer(parts)?.address.ip();
    Ok(client_of(peer, &parts.headers, &app.config.trusted_proxies))
}

pub(super) fn client_of(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    for named in values.flat_map(|list| list.split(',')).rev() {
        let Ok(named) = named.trim().parse::<IpAddr>() else { break };
        if !proxies.contains(&client) {
            break;
        }
        client = named.to_canonical();
    }
    client
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The start of links, from what the client asked for: clients behind a name or a proxy depend on it.
pub(super) fn origin(headers: &HeaderMap, peer: Peer, trusted: bool) -> (String, bool) {
    let forwarded = |name| text(headers, name).filter(|_| trusted);
    let secure =
        forwarded("x-forwarded-proto").map_or(peer.secure, |proto| proto.eq_ignore_ascii_case("https"));
    let plausible = |host: &&str| {
        !host.is_empty()
            && host.len() <= 255
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    };
    let host = forwarded("x-forwarded-host")
        .filter(plausible)
        .or_else(|| text(headers, header::HOST.as_str()).filter(plausible))
        .map_or_else(|| peer.local.to_string(), str::to_owned);
    (format!("{}://{host}", if secure { "https" } else { "http" }), secure)
}

async fn authenticate(app: &App, headers: &HeaderMap, id: &str, trusted: bool) -> ApiResult<Device> {
    let no = || ApiError::bare(StatusCode::UNAUTHORIZED);
    let now = clock::now();
    if let Some(value) = text(headers, header::AUTHORIZATION.as_str()) {
        let (scheme, token) = value.trim().split_once(' ').ok_or_else(no)?;
        let token = token.trim();
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(no());
        }
        let hash = blake3::hash(token.as_bytes());
        if scheme.eq_ignore_ascii_case("TargetToken") {
            let device = app.store.device(id).await?.ok_or_else(no)?;
            // Comparing two values of `blake3::Hash` takes constant time.
            return if device.token == Some(hash) { Ok(device) } else { Err(no()) };
        }
        if scheme.eq_ignore_ascii_case("GatewayToken") {
            let accepts = app.store.gateway(&hash, now).await?.ok_or_else(no)?;
            return known_or_registered(app, id, accepts, now).await;
        }
        return Err(no());
    }
    // A proxy has checked the client's certificate.
    let stated = text(headers, "x-controller-id").or_else(|| text(headers, "x-ssl-client-cn"));
    if trusted && stated == Some(id) {
        let issuers = headers
            .iter()
            .filter(|(name, _)| {
                name.as_str().starts_with("x-authority") || name.as_str().starts_with("x-ssl-issuer-hash")
            })
            .filter_map(|(_, value)| value.to_str().ok())
            .flat_map(|value| value.split(','));
        if issuers.map(str::trim).any(|issuer| app.config.authorities.iter().any(|known| known == issuer)) {
            return known_or_registered(app, id, true, now).await;
        }
    }
    Err(no())
}

/// The device, which is registered if nobody knows it yet.
async fn known_or_registered(app: &App, id: &str, accepts: bool, now: u64) -> ApiResult<Device> {
    if let Some(device) = app.store.device(id).await? {
        return Ok(device);
    }
    if accepts {
        app.store.decide_device(id, DeviceState::Accepted, None, now).await?;
    } else {
        app.store.register(id, MAX_PENDING_DEVICES, now).await.map_err(|error| {
            if matches!(error, crate::store::StoreError::Conflict(_)) {
                ApiError::later(3600)
            } else {
                error.into()
            }
        })?;
    }
    app.store.device(id).await?.ok_or_else(|| ApiError::bare(StatusCode::UNAUTHORIZED))
}

impl Shared {
    /// Remembers that a device was heard; written down now and then.
    fn saw(&self, id: &str, client: IpAddr) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(id.to_owned(), (clock::now(), client.to_string()));
    }
}

/// Reads a body, whole and within bounds. Read before anything is answered, so that the connection stays usable.
pub(super) async fn read_body(body: Body, most: usize) -> ApiResult<Bytes> {
    body_within(body, most, BODY_PATIENCE).await
}

async fn body_within(body: Body, most: usize, patience: Duration) -> ApiResult<Bytes> {
    match tokio::time::timeout(patience, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(ApiError::bare(StatusCode::PAYLOAD_TOO_LARGE)),
        Err(_) => Err(ApiError::bare(StatusCode::REQUEST_TIMEOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_proxy_is_believed_and_its_clients_are_not() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let proxies = ["10.0.0.1", "10.0.0.2"].map(address);
        for (peer, forwarded, want) in [
            ("192.0.2.9", &[][..], "192.0.2.9"),
            ("::ffff:192.0.2.9", &[], "192.0.2.9"),
            ("192.0.2.9", &["198.51.100.1"], "192.0.2.9"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, nonsense"], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            assert_eq!(client_of(address(peer), &headers, &proxies), address(want), "{peer} {forwarded:?}");
        }
    }
}
