//! Identifiers of our own. Three different call identifiers exist in the product: `CallKey` (ours,
//! here), the SIP Call-ID (`sip`) and Ultravox's call id (`ultravox`). None converts to another.

use std::fmt;
use std::net::SocketAddr;

/// Names one call in the Switchboard, the logs, the store and the media plane. Unique for the life
/// of a store: the high 32 bits are the start of the process in Unix seconds, the low count calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub u64);

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for CallKey {
    type Err = ();
    fn from_str(text: &str) -> Result<CallKey, ()> {
        let (start, count) = text.split_once('-').ok_or(())?;
        let start = u64::from_str_radix(start, 16).map_err(|_| ())?;
        let count = u64::from_str_radix(count, 16).map_err(|_| ())?;
        if start > u64::from(u32::MAX) || count > u64::from(u32::MAX) {
            return Err(());
        }
        Ok(CallKey(start << 32 | count))
    }
}

/// Names one leg within its call: the one that the call began with is 0 (the caller's, or of an
/// outgoing call the callee's), transfer targets follow. A number is never used twice in a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LegId(pub u32);

impl LegId {
    /// The leg that the call began with.
    pub const CALLER: LegId = LegId(0);
}

/// Names one agent stream within its call: the one that the call began with is 0. A number is never
/// used twice in a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The stream that the call began with.
    pub const FIRST: StreamId = StreamId(0);
}

/// Names a job that the Switchboard asked the shell for; the answer carries it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// Names a listening UDP socket, or one TCP or TLS connection, for as long as it is open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowId(pub u64);

/// A SIP transport (RFC 3261 §18).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// The word in a Via header.
    pub fn via_token(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    /// The value of a `transport` URI parameter (`tls` as in the seed's table).
    pub fn uri_param(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
    }

    /// True for TCP and TLS: retransmission timers A, E and G stay off (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }
}

/// Where a message came in and where its answers go: the packet's source, always, whatever Via,
/// `received` or `maddr` say (RFC 3581 in the strict reading of an internet edge).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    pub id: FlowId,
    pub transport: Transport,
    /// Our end: the listener's bound address, or the connection's local address.
    pub local: SocketAddr,
    /// The packet's source; IPv4-mapped IPv6 addresses are already turned into IPv4.
    pub peer: SocketAddr,
}

impl Flow {
    /// Whether it came in by a listener that is bound to this address, or belongs to it.
    pub fn is_of(self, listener: SocketAddr) -> bool {
        let any = listener.ip().is_unspecified() && listener.is_ipv4() == self.local.is_ipv4();
        listener.port() == self.local.port() && (any || listener.ip() == self.local.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_key_reads_back() {
        let key = CallKey(0x68f0_1234_0000_002a);
        assert_eq!(key.to_string(), "68f01234-2a");
        assert_eq!("68f01234-2a".parse(), Ok(key));
        assert_eq!("68f01234-2ag".parse::<CallKey>(), Err(()));
        assert_eq!("100000000-1".parse::<CallKey>(), Err(()));
    }
}
