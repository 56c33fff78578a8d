//! HTTP clients: one for the server of this device, with its token, and one for all others, without. A neighbour has clients of its own.
//!
//! The token goes to the server's own origin only (scheme, host and port), whatever a link or a redirect says.

use crate::cause::cause;
use crate::documents::Hash;
use crate::limits::MAX_REDIRECTS;
use crate::pin::client_config;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, Url};
use rustls::crypto::ring;
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetError {
    /// TLS failed: another key than the pinned one, or a certificate that nobody vouches for.
    #[error("TLS failed ({0})")]
    Tls(String),
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// More redirects than are followed, or one to something else than HTTP.
    #[error("redirects lead nowhere")]
    Redirects,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

/// What reaches servers.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    /// For the server of this device.
    own: Client,
    /// For everybody else.
    web: Client,
    server: Url,
    authorization: Option<HeaderValue>,
    redirects: usize,
}

impl Net {
    /// For the server at `server`, authenticated by `authorization`. With a pin, only a server whose certificate has this key is
    /// taken, and nothing else of the certificate counts; without one, the system's certificate authorities decide.
    ///
    /// # Errors
    /// If the TLS library cannot be set up.
    pub(crate) fn new(
        server: Url,
        pin: Option<Hash>,
        authorization: Option<HeaderValue>,
    ) -> Result<Self, NetError> {
        // Another part of the process may have installed the same provider before.
        let _ = ring::default_provider().install_default();
        let failed = |error: reqwest::Error| NetError::Tls(cause(&error));
        let web = builder().build().map_err(failed)?;
        let own = match pin {
            None => web.clone(),
            Some(pin) => {
                let config = client_config(pin).map_err(|error| NetError::Tls(error.to_string()))?;
                builder().https_only(true).tls_backend_preconfigured(config).build().map_err(failed)?
            }
        };
        Ok(Self { own, web, server, authorization, redirects: MAX_REDIRECTS })
    }

    /// For the neighbour at `url`, with the key of `pin` and the token that the server gave. Redirects are not followed.
    ///
    /// # Errors
    /// If the TLS library cannot be set up.
    pub(crate) fn of_neighbour(url: Url, pin: Hash, authorization: HeaderValue) -> Result<Self, NetError> {
        Ok(Self { redirects: 0, ..Self::new(url, Some(pin), Some(authorization))? })
    }

    /// The server's URL.
    pub(crate) const fn server(&self) -> &Url {
        &self.server
    }

    /// Whether `url` is at the server's origin.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.server.origin()
    }

    /// A request, with the token if `url` is at the server's origin. Redirects are not followed.
    pub(crate) fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        if !self.is_own(&url) {
            return self.web.request(method, url);
        }
        let request = self.own.request(method, url);
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// Gets `url` with these headers, and follows redirects to HTTP and HTTPS. A redirect to another origin goes without the token.
    pub(crate) async fn get(
        &self,
        mut url: Url,
        headers: &[(HeaderName, HeaderValue)],
        within: Duration,
    ) -> Result<Response, NetError> {
        let headers: HeaderMap = headers.iter().cloned().collect();
        for _ in 0..=self.redirects {
            let request = self.request(Method::GET, url.clone()).headers(headers.clone());
            let sent = tokio::time::timeout(within, request.send()).await.map_err(|_| NetError::Timeout)?;
            let response = sent.map_err(|error| classify(&error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or(NetError::Redirects)?;
        }
        Err(NetError::Redirects)
    }
}

fn builder() -> reqwest::ClientBuilder {
    // Bodies arrive as they are: what was signed are the plain bytes.
    let identity = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    Client::builder()
        .user_agent(concat!("mcp-agent/", env!("CARGO_PKG_VERSION")))
        .default_headers(identity)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(1)
}

/// What kind of failure this is. The library's text holds URLs, which a report may hold but a secret may be in, so only the innermost
/// cause is kept.
pub(crate) fn classify(error: &reqwest::Error) -> NetError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = next {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return NetError::Tls(tls.to_string());
        }
        // The source of an I/O error is that of the error inside, which would be left out.
        next = match inner.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|error| error as &(dyn std::error::Error + 'static)),
            None => inner.source(),
        };
    }
    if error.is_timeout() { NetError::Timeout } else { NetError::Unreachable(cause(error)) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Server;
    use super::*;
    use crate::server::{listen, tls};
    use axum::Router;
    use axum::response::Redirect;
    use tokio::sync::watch;

    #[tokio::test]
    async fn a_neighbour_is_known_by_its_key_and_sends_nobody_elsewhere() {
        let elsewhere = Server::start(|_, _| async {}).await;
        let target = elsewhere.url.clone();
        let router = Router::new().fallback(move || async move { Redirect::temporary(&target) });
        let dir = tempfile::tempdir().unwrap();
        let tls = tls::server_tls(dir.path(), &["127.0.0.1".to_owned()], None).unwrap();
        let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url: Url = format!("https://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let acceptor = Some(tokio_rustls::TlsAcceptor::from(tls.config));
        tokio::spawn(listen::serve(listener, acceptor, router, listen::Bounds::default(), stopped));

        let get = async |pin| {
            let net =
                Net::of_neighbour(url.clone(), pin, HeaderValue::from_static("NeighbourToken x")).unwrap();
            net.get(url.clone(), &[], CONNECT).await.unwrap_err()
        };
        assert_eq!(get(tls.pin).await, NetError::Redirects);
        assert!(elsewhere.requests().is_empty());
        assert!(matches!(get(Hash([0; 32])).await, NetError::Tls(_)), "another key");
    }
}
