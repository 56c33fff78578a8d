//! Connections: accepted within bounds, with TLS or without, and closed when they stand still.

use super::rate::{Counts, network};
use crate::limits::{
    HANDSHAKE_PATIENCE, HEADER_PATIENCE, MAX_CONNECTIONS, MAX_CONNECTIONS_OF_ADDRESS, MAX_HEAD,
    WRITE_PATIENCE,
};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// The connection of a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Who is at the other end.
    pub address: SocketAddr,
    /// At which of our addresses.
    pub local: SocketAddr,
    /// Whether it is encrypted.
    pub secure: bool,
}

/// Waits until `stop` says true, or nobody can say it any more.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Listens at `address`, with room for a whole fleet that connects at once.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    /// Connections that wait to be accepted; the system bounds it too (`net.core.somaxconn`).
    const WAITING: u32 = 16_384;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that was just stopped leaves connections behind that would keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// What bounds connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many are open at once.
    pub connections: usize,
    /// How many of one address.
    pub of_address: usize,
    /// How long a request's head may take, and how long a connection stays open without one.
    pub header: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, of_address: MAX_CONNECTIONS_OF_ADDRESS, header: HEADER_PATIENCE }
    }
}

/// Serves `router` on `listener` until `stop` says true. Requests that began before are completed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    let of_address = Counts::new(bounds.of_address);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, address)) = accepted else {
            // Too many files are open, or the peer is gone already.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Beyond the bounds: closed at once. A poll later finds room.
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let Some(counted) = of_address.one(network(address.ip())) else { continue };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            let _held = (permit, counted);
            let _ = connection(stream, address, tls, router, bounds.header, stop).await;
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(Duration::from_secs(10), ended).await;
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    header: Duration,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = Peer { address, local: stream.local_addr()?, secure: tls.is_some() };
    match tls {
        None => http(Patient::new(stream), peer, router, header, stop).await,
        Some(tls) => {
            let stream = timeout(HANDSHAKE_PATIENCE, tls.accept(Patient::new(stream))).await??;
            http(stream, peer, router, header, stop).await;
        }
    }
    Ok(())
}

async fn http<S>(stream: S, peer: Peer, router: Router, header: Duration, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header).max_buf_size(MAX_HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// A stream whose peer must take bytes: an answer that stands still for [`WRITE_PATIENCE`] ends the connection.
struct Patient {
    stream: TcpStream,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, deadline: None }
    }

    /// Passes on what a write came to, and keeps the time while it waits.
    fn watch<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.deadline = None;
            return result;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_PATIENCE)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, result)
    }
}
