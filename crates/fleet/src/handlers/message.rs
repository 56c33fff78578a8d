//! What the agent and the helper process tell each other: one message with descriptors over a socket, one line back.

use super::manifest::{Limits, Sandbox, User};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Stands for the path of the object in words and variables, since only the helper knows the number of its descriptor.
pub(super) const OBJECT: &str = "\0";

/// What a helper process is to run. The descriptors that come with it: this description, the status pipe, the
/// executable, then the object and the commit socket if there are such.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The process that sent it, by its own count.
    pub parent: u32,
    pub name: String,
    pub args: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub user: Option<User>,
    pub sandbox: Sandbox,
    pub limits: Limits,
    pub has_object: bool,
    pub has_commit: bool,
    /// Whether a cgroup counts its memory.
    pub has_cgroup: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// The handler exited.
    Exited(i32),
    /// A signal ended the handler.
    Killed(i32),
    /// It was never started.
    NotStarted(String),
}

const MOST: usize = 5;

/// Sends the descriptors.
pub(super) fn send(socket: impl AsFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(b"!")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives them. None is inherited by a program that is executed.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes != 1 || byte != *b"!" {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    Ok(fds)
}

/// Writes the description into memory that can be sent.
pub(super) fn write_spec(spec: &Spec) -> io::Result<OwnedFd> {
    let mut file: std::fs::File =
        rustix::fs::memfd_create("mcp-run", rustix::fs::MemfdFlags::CLOEXEC)?.into();
    file.write_all(&serde_json::to_vec(spec)?)?;
    Ok(file.into())
}

/// Reads it. May be called again by whom it is passed on to.
pub(super) fn read_spec(fd: OwnedFd) -> io::Result<(Spec, OwnedFd)> {
    let mut file = std::fs::File::from(fd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((serde_json::from_slice(&bytes)?, file.into()))
}
