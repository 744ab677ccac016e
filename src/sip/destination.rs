//! Where a message of ours goes. Plain data: the shell turns it into an address.

use std::net::SocketAddr;

/// The target of one send on a flow. On a stream all of them mean its other end: a request never
/// leaves the connection that its dialog lives on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The other end of the flow.
    Peer,
    /// Another address, from the same listening socket.
    Address(SocketAddr),
}
