//! The server, as an operator's commands ask it: over TLS with its pin, each request signed.

use crate::cause::cause;
use crate::documents::{Envelope, Hash, Kind, SecretKey};
use crate::server::state_dir::{Address, StateError, random, read_key};
use crate::server::{RequestPayload, clock};
use data_encoding::HEXLOWER;
use reqwest::header::AUTHORIZATION;
use reqwest::{Body, Client, Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the server could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The file that says how to reach the server cannot be used.
    #[error("cannot read {} ({why}); run 'mcp serve' on this machine, or name the file with --server", path.display())]
    Address {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no operator's key.
    #[error("there is no operator's key in {}; name the file with --operator-key", .0.display())]
    NoKey(PathBuf),
    /// A file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The server was not reached.
    #[error("cannot reach {url} ({why}); check that 'mcp serve' runs there")]
    Unreachable {
        /// The server.
        url: String,
        /// Why.
        why: String,
    },
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server's answer makes no sense.
    #[error("the server's answer cannot be read; use the same version of mcp on both sides")]
    Answer,
}

/// The server.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    url: Url,
    /// How it is reached and known.
    pub address: Address,
    /// The operator's key.
    pub key: SecretKey,
}

impl Remote {
    /// The server that the file `address` describes, asked with the operator's key in the file `key`.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn new(address: &Path, url: Option<&str>, key: &Path) -> Result<Self, RemoteError> {
        let wrong = |why: String| RemoteError::Address { path: address.to_owned(), why };
        let text = std::fs::read(address).map_err(|error| wrong(error.to_string()))?;
        let reach: Address = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let key = read_key(key)?.ok_or_else(|| RemoteError::NoKey(key.to_owned()))?;
        let url = url.unwrap_or(&reach.url);
        let url: Url = url.parse().map_err(|_| wrong(format!("{url} is no URL")))?;
        // Another part of the process may have installed the same provider before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = crate::pin::client_config(reach.pin).map_err(|error| wrong(error.to_string()))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { client, url, address: reach, key })
    }

    /// Asks for `path` below the operators' interface.
    ///
    /// # Errors
    ///
    /// If the server is not reached, refuses, or answers what cannot be read.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RemoteError> {
        self.json(Method::GET, path, Vec::new()).await
    }

    /// Sends `body` to `path`, and reads the answer.
    ///
    /// # Errors
    ///
    /// As [`Remote::get`].
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, RemoteError> {
        let body = serde_json::to_vec(body).map_err(|_| RemoteError::Answer)?;
        self.json(method, path, body).await
    }

    /// The URL of a path of the server's page.
    ///
    /// # Errors
    ///
    /// If the path makes no URL.
    pub fn link(&self, path: &str) -> Result<String, RemoteError> {
        self.url.join(path).map(String::from).map_err(|_| RemoteError::Answer)
    }

    /// Sends `body`, if any, to `path`, where there is no answer to read.
    ///
    /// # Errors
    ///
    /// As [`Remote::get`].
    pub async fn order(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(), RemoteError> {
        let hash = Hash::of(&body);
        self.ask(method, path, hash, Body::from(body)).await.map(drop)
    }

    /// Uploads the bytes of `file`, whose hash is `hash`.
    ///
    /// # Errors
    ///
    /// As [`Remote::get`].
    pub async fn upload<T: DeserializeOwned>(
        &self,
        hash: Hash,
        file: std::fs::File,
    ) -> Result<T, RemoteError> {
        let body = Body::wrap_stream(FileStream::new(file));
        let bytes = self.ask(Method::PUT, &format!("/objects/{hash}"), hash, body).await?;
        serde_json::from_slice(&bytes).map_err(|_| RemoteError::Answer)
    }

    /// The newest root, as an envelope.
    ///
    /// # Errors
    ///
    /// As [`Remote::get`].
    pub async fn newest_root(&self) -> Result<Vec<u8>, RemoteError> {
        let newest: serde_json::Value = self.get("/roots").await?;
        let text = newest.get("envelope").and_then(serde_json::Value::as_str).ok_or(RemoteError::Answer)?;
        Envelope::from_metadata(text).map(|envelope| envelope.to_bytes()).map_err(|_| RemoteError::Answer)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, RemoteError> {
        let hash = Hash::of(&body);
        let bytes = self.ask(method, path, hash, Body::from(body)).await?;
        serde_json::from_slice(&bytes).map_err(|_| RemoteError::Answer)
    }

    async fn ask(&self, method: Method, path: &str, hash: Hash, body: Body) -> Result<Vec<u8>, RemoteError> {
        let path = format!("/mcp/v1/manage{path}");
        let url = self.url.join(&path).map_err(|_| RemoteError::Answer)?;
        // What the library sends after it encoded the path.
        let path =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let payload = RequestPayload {
            fleet: self.address.fleet,
            method: method.to_string(),
            path,
            body: hash,
            time: clock::now(),
            nonce: HEXLOWER.encode(&random::<16>()?[..]),
        };
        let mut envelope = Envelope::unsigned(serde_json::to_vec(&payload).map_err(|_| RemoteError::Answer)?);
        envelope.sign(Kind::Request, &self.key);
        let unreachable = |error: reqwest::Error| RemoteError::Unreachable {
            url: self.url.to_string(),
            why: cause(&error),
        };
        let answer = self
            .client
            .request(method, url)
            .header(AUTHORIZATION, format!("McpRequest {}", envelope.to_metadata()))
            .body(body)
            .send()
            .await
            .map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(bytes.into());
        }
        let said: crate::ddi::ErrorBody = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(RemoteError::Refused(match status {
            _ if !said.message.is_empty() => said.message,
            StatusCode::SERVICE_UNAVAILABLE => "it is busy, or its database is away; try again later".into(),
            _ => format!("it answered {status}"),
        }))
    }
}

/// A file as the body of a request.
struct FileStream {
    pieces: tokio::sync::mpsc::Receiver<std::io::Result<Vec<u8>>>,
}

impl FileStream {
    fn new(mut file: std::fs::File) -> Self {
        let (sender, pieces) = tokio::sync::mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut piece = vec![0; 256 * 1024];
                let read = std::io::Read::read(&mut file, &mut piece);
                let last = !matches!(read, Ok(n) if n > 0);
                let piece = read.map(|n| {
                    piece.truncate(n);
                    piece
                });
                if matches!(&piece, Ok(bytes) if bytes.is_empty())
                    || sender.blocking_send(piece).is_err()
                    || last
                {
                    return;
                }
            }
        });
        Self { pieces }
    }
}

impl futures_core::Stream for FileStream {
    type Item = std::io::Result<Vec<u8>>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.pieces.poll_recv(context)
    }
}
