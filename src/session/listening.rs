//! Where a session listens for senders, with all defaults resolved.

use super::{StartError, read_label};
use crate::limits::{DEFAULT_GROUP_V4, DEFAULT_GROUP_V6};
use crate::net::endpoint::Families;
use crate::net::{AddressKind, Destination, Features, Interface, InterfaceError, ReceiveChoice, UdpNet};
use std::net::SocketAddr;

/// See the module's description.
pub(super) struct Listening {
    /// The named group.
    pub group: Option<Destination>,
    interfaces: Vec<Interface>,
    /// Chooses again when the network changes.
    choice: ReceiveChoice,
    /// Why there is no interface yet.
    lacking: Option<InterfaceError>,
    /// All groups to listen to: the rendezvous groups and the named one.
    pub groups: Vec<SocketAddr>,
    families: Families,
    port: u16,
}

impl Listening {
    /// Listens at the rendezvous groups, and at `group` if one is named; at its port, or at `port`.
    ///
    /// # Errors
    /// If no interface is suitable, and none will be.
    pub fn new(interface: Option<String>, group: Option<Destination>, port: u16) -> Result<Self, StartError> {
        let mut choice = ReceiveChoice::new(interface, group);
        let (interfaces, lacking) = match choice.choose() {
            Ok(interfaces) => (interfaces, None),
            // A machine that starts up may be faster than its network.
            Err(e) if e.may_pass() => (Vec::new(), Some(e)),
            Err(e) => return Err(e.into()),
        };
        let port = group.as_ref().map_or(port, |group| group.addr.port());
        let families = group.as_ref().map_or(Families::ANY, |group| Families::of(&group.addr));
        let mut groups = Vec::new();
        if families.v4 {
            groups.push(SocketAddr::from((DEFAULT_GROUP_V4, port)));
        }
        if families.v6 {
            groups.push(SocketAddr::from((DEFAULT_GROUP_V6, port)));
        }
        if let Some(group) = &group
            && group.kind == AddressKind::Multicast
            && !groups.contains(&group.addr)
        {
            groups.push(group.addr);
        }
        Ok(Self { group, interfaces, choice, lacking, groups, families, port })
    }

    /// Opens the sockets. Returns them with warnings for the user.
    ///
    /// # Errors
    /// If another program holds the port exclusively.
    pub fn open(&self) -> Result<(UdpNet, Vec<String>), StartError> {
        let net = UdpNet::receiver(
            &self.interfaces,
            self.port,
            self.families,
            (Features::default(), Some(read_label)),
        );
        let mut net = net.map_err(|e| {
            StartError::new(format!(
                "cannot listen on port {}: {e}; use another one on both sides with --port",
                self.port
            ))
        })?;
        net.rebind(self.choice.clone());
        Ok((net, self.lacking.iter().map(|e| format!("{e}; waiting for it")).collect()))
    }

    /// The address to show to people.
    pub fn shown(&self) -> SocketAddr {
        self.group.as_ref().map_or(self.groups[0], |group| group.addr)
    }
}
