//! Sends an object by multicast to the others of this device's segment, where the server's multicast does not reach.
//!
//! The server asks for it, and only devices that serve others are asked ([`super::SharePolicy`]). The session's keys come from the
//! server, over the same connection as everything else. It sends the copy that is kept for neighbours: verified bytes that no
//! other program changes.

use super::core::Core;
use super::fetch::blocking;
use super::offering::Offering;
use crate::ddi::{Perform, SessionKeys};
use crate::documents::Hash;
use mcp_transfer::net::Destination;
use mcp_transfer::session::send::SETTLE;
use mcp_transfer::session::{RateChoice, SendHandle, SendSession, Target};
use mcp_transfer::storage::{FileSource, Source as _};
use mcp_transfer::units::{Counter, Rate};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the session waits for devices that join late.
const LINGER: Duration = Duration::from_secs(5);
/// It ends after this time and a second for each so many bytes, whatever devices do.
const MAX_TIME: (Duration, u64) = (Duration::from_secs(600), 100_000);
/// How often the end of the session is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// The copy of an object of `size` bytes that is kept for neighbours. Waits until it is there.
///
/// # Errors
/// If the copy cannot be made: a clause.
pub(super) async fn copy(
    offering: &Arc<Offering>,
    (object, size): (Hash, u64),
    part: File,
) -> Result<PathBuf, String> {
    let copying = Arc::clone(offering);
    let copied = blocking(move || copying.copy(object, size, part).map_err(io::Error::other)).await;
    copied.map(|()| offering.path(&object)).map_err(|error| error.to_string())
}

/// Performs a session with a copy, and waits for its end. Returns what came of it, for people. Dropping the future ends the
/// session.
///
/// # Errors
/// If the session cannot be made, or the network fails: a clause.
pub(super) async fn perform(
    core: &Arc<Core>,
    offering: &Arc<Offering>,
    perform: &Perform,
    (path, name): (&Path, &str),
) -> Result<String, String> {
    let session = {
        let (path, name, perform) = (path.to_owned(), name.to_owned(), perform.clone());
        let interface = core.settings.interface.clone();
        let rate = RateChoice::Auto(Some(Rate(offering.bits_per_second())));
        // Opening the copy and the sockets waits for the disk and the system.
        blocking(move || {
            let source = FileSource::open_as(&path, Some(&name)).map_err(io::Error::other)?;
            start(source, &perform, interface, rate).map_err(io::Error::other)
        })
        .await
        .map_err(|error| error.to_string())?
    };
    while !session.is_over() {
        tokio::time::sleep(LOOK).await;
    }
    let sent = blocking(move || session.wait().map_err(io::Error::other))
        .await
        .map_err(|error| error.to_string())?;
    let devices = sent.snapshot.sender.overview.devices;
    Ok(format!("sent {name} to {} of {} devices of this segment", devices.complete, perform.devices))
}

fn start(
    source: FileSource,
    perform: &Perform,
    interface: Option<String>,
    rate: RateChoice,
) -> Result<SendHandle, Box<dyn std::error::Error + Send + Sync>> {
    let secret = perform.secret().ok_or("its keys cannot be read")?;
    let SessionKeys { sender, seal } = SessionKeys::of(&secret)?;
    if !perform.group.ip().is_multicast() {
        return Err("its group is none".into());
    }
    let size = source.extent().size;
    let group = Destination::group(perform.group.ip(), perform.group.port());
    let devices = u32::try_from(perform.devices).unwrap_or(u32::MAX);
    let session = SendSession::builder(source, Target::At(group))
        .interface(interface)
        .rate(rate)
        .expected(Some(devices))
        .gather(perform.gather(), SETTLE)
        .linger(LINGER)
        .max_time(Some(MAX_TIME.0 + Duration::from_secs(size / MAX_TIME.1)))
        .group_key(Some(seal))
        .signing_key(sender, Counter(1));
    Ok(session.start()?)
}
