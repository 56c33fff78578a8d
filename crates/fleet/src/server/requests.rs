//! Counts and logs each request: who asked for what, with which answer, and how long it took.

use super::listen::Peer;
use super::{App, auth};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use std::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, debug_span};

/// Answers a request. Paths may hold secrets, so the route stands for them.
pub(super) async fn note(State(app): State<App>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let span = debug_span!("request", method = %request.method(), route = Empty, client = Empty, device = Empty, operator = Empty);
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        span.record("route", route.as_str());
    }
    if let Some(peer) = request.extensions().get::<Peer>() {
        let client = auth::client_of(peer.address.ip(), request.headers(), &app.config.trusted_proxies);
        span.record("client", tracing::field::display(client));
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    app.metrics.answered(status);
    span.in_scope(|| debug!(status, seconds = begun.elapsed().as_secs_f64(), "answered"));
    response
}

/// The request is this device's.
pub(super) fn by_device(id: &str) {
    Span::current().record("device", id);
}

/// The request is this operator's.
pub(super) fn by_operator(name: &str) {
    Span::current().record("operator", name);
}
