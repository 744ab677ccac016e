//! Who hears whom in one call: a small slab of ports. Today a call has its caller's leg and one agent
//! stream at a time; a transfer adds a leg and hold music to the same slab, and nothing else changes
//! its place. The topology holds no audio and no codec.

/// What stands at one place of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// A SIP leg; the caller's is the first port.
    Leg,
    /// The agent's stream. Its generation tells a new stream from the one that it replaced.
    AgentStream { generation: u32 },
    /// Audio of our own for a leg that waits.
    Music,
}

/// Names a port of one call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortId(u8);

/// Ports that one call can have at once: two legs, an agent, music.
pub const PORTS_MAX: usize = 4;

/// The ports of one call and who hears whom.
#[derive(Clone, Debug)]
pub struct Topology {
    ports: [Option<Port>; PORTS_MAX],
    /// `hears[listener]` has the bit of each port that it hears.
    hears: [u8; PORTS_MAX],
    generation: u32,
}

impl Topology {
    /// The caller's leg, alone.
    pub const CALLER: PortId = PortId(0);

    pub fn new() -> Topology {
        let mut ports = [None; PORTS_MAX];
        ports[0] = Some(Port::Leg);
        Topology { ports, hears: [0; PORTS_MAX], generation: 0 }
    }

    /// Puts a new agent stream beside the caller; both hear each other. An older agent stream goes.
    /// `None` when every place is taken.
    pub fn join_agent(&mut self) -> Option<PortId> {
        if let Some(old) = self.agent() {
            self.remove(old);
        }
        self.generation += 1;
        let place = self.ports.iter().position(Option::is_none)?;
        self.ports[place] = Some(Port::AgentStream { generation: self.generation });
        let agent = PortId(place as u8);
        self.connect(Topology::CALLER, agent);
        Some(agent)
    }

    /// The agent stream's port.
    pub fn agent(&self) -> Option<PortId> {
        let is_agent = |port: &Option<Port>| matches!(port, Some(Port::AgentStream { .. }));
        self.ports.iter().position(is_agent).map(|place| PortId(place as u8))
    }

    /// Both hear each other.
    pub fn connect(&mut self, one: PortId, other: PortId) {
        if let Some(heard) = self.hears.get_mut(usize::from(one.0)) {
            *heard |= 1 << other.0;
        }
        if let Some(heard) = self.hears.get_mut(usize::from(other.0)) {
            *heard |= 1 << one.0;
        }
    }

    /// Takes a port away; nobody hears it any more.
    pub fn remove(&mut self, port: PortId) {
        let place = usize::from(port.0);
        if place < PORTS_MAX {
            self.ports[place] = None;
            self.hears[place] = 0;
        }
        for heard in &mut self.hears {
            *heard &= !(1 << port.0);
        }
    }

    pub fn hears(&self, listener: PortId, speaker: PortId) -> bool {
        let heard = self.hears.get(usize::from(listener.0));
        heard.is_some_and(|heard| heard & (1 << speaker.0) != 0)
    }

    /// The end of `port` finishes the call: the caller hears it and nobody else.
    pub fn is_sole_partner(&self, port: PortId) -> bool {
        self.hears[usize::from(Topology::CALLER.0)] == 1 << port.0
    }
}

impl Default for Topology {
    fn default() -> Topology {
        Topology::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_and_the_caller_hear_each_other_until_it_leaves() {
        let mut topology = Topology::new();
        assert_eq!(topology.agent(), None);
        let agent = topology.join_agent().expect("three places are free");
        assert!(topology.hears(Topology::CALLER, agent) && topology.hears(agent, Topology::CALLER));
        assert!(topology.is_sole_partner(agent));
        topology.remove(agent);
        assert!(!topology.hears(Topology::CALLER, agent) && !topology.is_sole_partner(agent));
    }

    #[test]
    fn a_second_stream_replaces_the_first_with_a_new_generation() {
        let mut topology = Topology::new();
        topology.join_agent();
        let agent = topology.join_agent().expect("the first stream's place is free again");
        assert_eq!(topology.agent(), Some(agent));
        assert_eq!(topology.ports[1], Some(Port::AgentStream { generation: 2 }));
        assert_eq!(topology.ports.iter().flatten().count(), 2);
    }
}
