//! The device's side of the interfaces of a server: DDI, and what an `mcp serve` has beside it.

use super::fetch::retry_after;
use super::net::{Net, NetError, classify};
use super::state::Identity;
use crate::ddi::{ConfigData, SessionOffer, parse};
use crate::documents::{Envelope, Hash};
use crate::lacking::Lacking;
use crate::limits::{MAX_DDI_ANSWER, MAX_DOCUMENT, MAX_NEIGHBOURS};
use crate::neighbour::{Near, Neighbour, Offer};
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a small answer may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Why a request has no useful answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No answer.
    #[error("the server cannot be reached: {0}")]
    Net(#[from] NetError),
    /// The server asks to come later.
    #[error("the server is busy (status {status})")]
    Later {
        /// The status.
        status: u16,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// 401 or 403.
    #[error(
        "the server does not accept this device (status {0}); ask the operator to accept it, or join again"
    )]
    Unauthorized(u16),
    /// 404 or 410.
    #[error("the server has no such thing (status {0})")]
    Gone(u16),
    /// Another answer that is no success.
    #[error("the server answers with status {0}")]
    Status(u16),
    /// Too long, or not to be read.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(String),
}

/// A client of one server, as one device.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub net: Net,
    /// Of DDI, with tenant and device.
    base: Url,
    device: String,
    /// How long a small answer may take, and its head.
    within: Duration,
}

/// What a device says of an object of its task.
#[derive(Debug, Serialize)]
pub(crate) struct Said<'a> {
    /// The object.
    pub object: Hash,
    /// What the device lacks of it; nothing: it has all of it.
    pub lacking: &'a Lacking,
    /// Whether it heard nobody in the last session.
    pub unreached: bool,
    /// Whether it would give the object to its neighbours.
    pub serves: bool,
}

impl Api {
    /// The client of this identity.
    ///
    /// # Errors
    /// If the server's URL cannot be used.
    pub(crate) fn new(identity: &Identity) -> Result<Self, ApiError> {
        let bad = |what: &str| ApiError::Unreadable(format!("{what} cannot be used"));
        let server: Url = identity.server.parse().map_err(|_| bad("the server's URL"))?;
        let mut base = server.clone();
        base.path_segments_mut().map_err(|()| bad("the server's URL"))?.pop_if_empty().extend([
            &identity.tenant,
            "controller",
            "v1",
            &identity.device,
        ]);
        let mut authorization = match &identity.authorization {
            Some(value) => Some(HeaderValue::from_str(value).map_err(|_| bad("the token"))?),
            None => None,
        };
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        let net = Net::new(server, identity.pin, authorization)?;
        Ok(Self { net, base, device: identity.device.clone(), within: WITHIN })
    }

    /// The URL of the poll.
    pub(crate) const fn base(&self) -> &Url {
        &self.base
    }

    /// A URL of ours, below `/mcp/v1`.
    pub(crate) fn ours(&self, segments: &[&str]) -> Url {
        let mut url = self.net.server().clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["mcp", "v1"]).extend(segments);
        }
        url
    }

    /// A link's URL. Links of the interface itself lead to the device's server, whatever host they name: a server behind a proxy may
    /// not know its own name, and the token goes nowhere else.
    pub(crate) fn link(&self, href: &str) -> Option<Url> {
        let linked = self.base.join(href).ok()?;
        let mut url = self.net.server().clone();
        url.set_path(linked.path());
        url.set_query(linked.query());
        Some(url)
    }

    /// Where feedback on the action of this link goes: to its path without query.
    pub(crate) fn feedback_url(mut link: Url) -> Url {
        link.set_query(None);
        if let Ok(mut path) = link.path_segments_mut() {
            path.pop_if_empty().push("feedback");
        }
        link
    }

    /// Gets a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, ApiError> {
        let bytes = self.bytes(url, MAX_DDI_ANSWER).await?;
        parse(&bytes).map_err(|error| ApiError::Unreadable(error.to_string()))
    }

    /// Gets an envelope.
    pub(crate) async fn envelope(&self, url: Url) -> Result<Envelope, ApiError> {
        let bytes = self.bytes(url, MAX_DOCUMENT).await?;
        Envelope::parse(&bytes).map_err(|error| ApiError::Unreadable(error.to_string()))
    }

    /// Gets root `version`; `None` if there is none yet.
    pub(crate) async fn root(&self, version: u64) -> Result<Option<Envelope>, ApiError> {
        match self.envelope(self.ours(&["roots", &version.to_string()])).await {
            Ok(root) => Ok(Some(root)),
            Err(ApiError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The server's clock, in seconds since 1970; `None` if it does not tell.
    pub(crate) async fn server_time(&self) -> Result<Option<u64>, ApiError> {
        let response = checked(self.net.get(self.ours(&["roots", "1"]), &[], WITHIN).await?)?;
        let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
        let time = date.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
        Ok(time.and_then(|time| time.as_second().try_into().ok()))
    }

    /// Where an object is at this server, and its list of chaining values.
    pub(crate) fn object(&self, blake3: Hash) -> [Url; 2] {
        let hash = blake3.to_string();
        [self.ours(&["objects", &hash]), self.ours(&["objects", &hash, "hashes"])]
    }

    /// The URL of the signed list, asked for with `nonce`.
    pub(crate) fn list(&self, nonce: &str) -> Url {
        let mut url = self.ours(&["devices", &self.device, "list"]);
        url.query_pairs_mut().append_pair("nonce", nonce);
        url
    }

    /// Says what this device lacks of an object of an action. Returns how to get it.
    pub(crate) async fn lacking(&self, action: &str, said: &Said<'_>) -> Result<SessionOffer, ApiError> {
        let url = self.ours(&["devices", &self.device, "actions", action, "lacking"]);
        let bytes = self.send(Method::POST, url, said).await?;
        parse(&bytes).map_err(|error| ApiError::Unreadable(error.to_string()))
    }

    /// Says what this device offers to its neighbours.
    pub(crate) async fn offer(&self, offer: &Offer) -> Result<(), ApiError> {
        let url = self.ours(&["devices", &self.device, "neighbour"]);
        self.send(Method::PUT, url, offer).await.map(drop)
    }

    /// The neighbours that have an object, as far as the server names any.
    pub(crate) async fn neighbours(&self, object: Hash) -> Result<Vec<Neighbour>, ApiError> {
        let url = self.ours(&["devices", &self.device, "objects", &object.to_string(), "neighbours"]);
        let mut near: Near = self.get(url).await?;
        near.neighbours.truncate(MAX_NEIGHBOURS);
        Ok(near.neighbours)
    }

    /// Sends attributes.
    pub(crate) async fn put_attributes(&self, data: &ConfigData) -> Result<(), ApiError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push("configData");
        }
        self.send(Method::PUT, url, data).await.map(drop)
    }

    /// Sends feedback: a [`crate::ddi::Feedback`] or a [`crate::ddi::ConfirmationFeedback`].
    pub(crate) async fn feedback(&self, url: Url, feedback: &impl Serialize) -> Result<(), ApiError> {
        self.send(Method::POST, url, feedback).await.map(drop)
    }

    /// Sends a JSON document, and returns the answer's body.
    pub(crate) async fn send<T: Serialize>(
        &self,
        method: Method,
        url: Url,
        body: &T,
    ) -> Result<Vec<u8>, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| ApiError::Unreadable(error.to_string()))?;
        let request = self.net.request(method, url).header(CONTENT_TYPE, "application/json").body(body);
        let sent = tokio::time::timeout(self.within, request.send()).await.map_err(|_| NetError::Timeout)?;
        self.read(checked(sent.map_err(|error| classify(&error))?)?, MAX_DDI_ANSWER).await
    }

    async fn bytes(&self, url: Url, most: usize) -> Result<Vec<u8>, ApiError> {
        let accept: [(HeaderName, HeaderValue); 1] = [(ACCEPT, HeaderValue::from_static("application/json"))];
        self.read(checked(self.net.get(url, &accept, self.within).await?)?, most).await
    }

    /// The body of an answer, if it is no longer and comes no later than it may.
    async fn read(&self, mut response: Response, most: usize) -> Result<Vec<u8>, ApiError> {
        let all = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
                if bytes.len() + chunk.len() > most {
                    return Err(ApiError::Unreadable(format!("it is longer than {most} bytes")));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        tokio::time::timeout(self.within, all).await.map_err(|_| NetError::Timeout)?
    }
}

/// The answer, if it is a success.
fn checked(response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ApiError::Unauthorized(status.as_u16()),
        StatusCode::NOT_FOUND | StatusCode::GONE => ApiError::Gone(status.as_u16()),
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => {
            ApiError::Later { status: status.as_u16(), after: retry_after(&response) }
        }
        other => ApiError::Status(other.as_u16()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Server;
    use super::*;
    use crate::ddi::{ControllerBase, Execution, Feedback, Finished};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpStream;

    /// A client of a server that sends `head`, and then a blank again and again: at once, or one every 50 ms.
    async fn client(head: &'static str, slowly: bool) -> Api {
        let server = Server::start(move |_, mut stream: TcpStream| async move {
            let blanks = vec![b' '; if slowly { 1 } else { 1 << 16 }];
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = stream.write_all(&blanks).await;
                tokio::time::sleep(Duration::from_millis(if slowly { 50 } else { 0 })).await;
            }
        })
        .await;
        let identity = Identity {
            server: server.url,
            tenant: "DEFAULT".to_owned(),
            device: "desk-07".to_owned(),
            authorization: None,
            pin: None,
            fleet: None,
        };
        Api { within: Duration::from_millis(600), ..Api::new(&identity).unwrap() }
    }

    const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";

    #[tokio::test]
    async fn an_answer_that_comes_byte_by_byte_or_never_ends_is_given_up() {
        let feedback = Feedback::new("8", Execution::Closed, Finished::Success, Vec::new());
        for (head, slowly, want) in [
            (OK, true, "no answer in time"),
            ("HTTP/1.1 200 OK\r\nX-Long:", true, "no answer in time"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n", true, "no answer in time"),
            (OK, false, "longer than"),
        ] {
            let api = client(head, slowly).await;
            let url = api.base().clone();
            let errors = [
                api.get::<ControllerBase>(url.clone()).await.map(drop).unwrap_err(),
                api.envelope(url.clone()).await.map(drop).unwrap_err(),
                api.feedback(url, &feedback).await.unwrap_err(),
            ];
            for error in errors.map(|error| error.to_string()) {
                assert!(error.contains(want), "{head:?} {slowly}: {error}");
            }
        }
    }
}
