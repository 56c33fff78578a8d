//! Where a session listens for senders and which of them it trusts: as requested, and with all defaults resolved.

use super::events::Weigh;
use super::handle::Desk;
use super::{StartError, read_label};
use crate::crypto::derive::Secret;
use crate::crypto::group::GroupKeys;
use crate::limits::{DEFAULT_GROUP_V4, DEFAULT_GROUP_V6, DEFAULT_PORT};
use crate::net::endpoint::Families;
use crate::net::{AddressKind, Destination, Features, Interface, InterfaceError, ReceiveChoice, UdpNet};
use crate::protocol::trust::Trust;
use std::net::{IpAddr, SocketAddr};

/// Where to listen for senders, and which of them to trust: common to discovery and receive sessions.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Also listen to this group, at its port. A receive session then takes part only in sessions with this
    /// data address.
    pub group: Option<Destination>,
    /// Take the group's datagrams only from this source, of the same family [default: from everybody].
    pub source: Option<IpAddr>,
    /// The port if no group is named [default: 7417].
    pub port: u16,
    /// The interface, by its name or one of its addresses [default: all that could carry a group].
    pub interface: Option<String>,
    /// Accept only sessions sealed with one of these keys [default: only sessions without a group key].
    pub group_keys: Vec<GroupKeys>,
    /// The senders to accept [default: every sender, reported as unverified].
    pub trust: Trust,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            group: None,
            source: None,
            port: DEFAULT_PORT,
            interface: None,
            group_keys: Vec::new(),
            trust: Trust::anybody(),
        }
    }
}

impl Listen {
    /// The secrets of all group keys.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.group_keys.iter().flat_map(GroupKeys::secrets).cloned().collect()
    }
}

/// Where to listen, with all defaults resolved.
pub(super) struct Listening {
    /// The named group.
    pub group: Option<Destination>,
    source: Option<IpAddr>,
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
    /// Chooses the interfaces and the groups.
    ///
    /// # Errors
    /// If no interface is suitable, and none will be.
    pub fn new(listen: &Listen) -> Result<Self, StartError> {
        let group = listen.group;
        let mut choice = ReceiveChoice::new(listen.interface.clone(), group);
        let (interfaces, lacking) = match choice.choose() {
            Ok(interfaces) => (interfaces, None),
            // A machine that starts up may be faster than its network.
            Err(e) if e.may_pass() => (Vec::new(), Some(e)),
            Err(e) => return Err(e.into()),
        };
        let port = group.as_ref().map_or(listen.port, |group| group.addr.port());
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
        Ok(Self { group, source: listen.source, interfaces, choice, lacking, groups, families, port })
    }

    /// Opens the sockets. Warns `desk` if there is no interface yet.
    ///
    /// # Errors
    /// If another program holds the port exclusively.
    pub fn open<E, S>(&self, desk: &Desk<E, S>) -> Result<UdpNet, StartError>
    where
        E: Weigh + Send + 'static,
        S: Clone + Send + 'static,
    {
        let net = UdpNet::receiver(
            &self.interfaces,
            self.port,
            self.families,
            (Features::default(), Some(read_label)),
        );
        let mut net =
            net.map_err(|e| StartError::new(format!("cannot listen on port {}: {e}", self.port)))?;
        if let (Some(group), Some(source)) = (&self.group, self.source) {
            net.only_from(group.addr.ip(), source);
        }
        net.rebind(self.choice.clone());
        if let Some(e) = &self.lacking {
            desk.warn(format!("{e}; waiting for it"));
        }
        Ok(net)
    }

    /// The address to show to people.
    pub fn shown(&self) -> SocketAddr {
        self.group.as_ref().map_or(self.groups[0], |group| group.addr)
    }
}
