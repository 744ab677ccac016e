//! Networks by chance: when each packet of a caller arrives, and which never do. Every figure follows
//! from the seed.

use std::time::Duration;
use voxedge::ground::Entropy;

/// The shortest way of a packet.
const WAY: Duration = Duration::from_millis(20);
/// Bad and good states of a link that loses in bursts: 3 % in all, three packets in a row on average.
const BURST_BEGINS: f64 = 0.03 / 0.97 / 3.0;
const BURST_ENDS: f64 = 1.0 / 3.0;
/// How much longer than the shortest a packet may take on a link with jitter.
const JITTER_MAX: Duration = Duration::from_millis(60);
/// How often the talk is repeated where the clocks drift: some ten minutes.
const DRIFT_ROUNDS: usize = 11;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Network {
    Clean,
    /// Each packet is lost with this chance, in percent.
    Loss(u8),
    /// Losses come in a row (Gilbert).
    Burst,
    /// Each packet takes 0 to 60 ms longer, by its own chance: 30 ms around the mean, and packets
    /// overtake each other.
    Jitter,
    /// The caller's clock runs so many millionths fast or, below zero, slow.
    Drift(i32),
}

pub const ALL: [Network; 8] = [
    Network::Clean,
    Network::Loss(1),
    Network::Loss(3),
    Network::Loss(5),
    Network::Burst,
    Network::Jitter,
    Network::Drift(200),
    Network::Drift(-200),
];

/// A packet that came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its number, from 0.
    pub packet: usize,
    /// Since the first moment of the talk.
    pub at: Duration,
}

impl Network {
    pub fn name(self) -> &'static str {
        match self {
            Network::Clean => "clean",
            Network::Loss(1) => "1 % loss",
            Network::Loss(3) => "3 % loss",
            Network::Loss(_) => "5 % loss",
            Network::Burst => "3 % in bursts",
            Network::Jitter => "jitter",
            Network::Drift(0..) => "drift +",
            Network::Drift(_) => "drift -",
        }
    }

    /// Millionths by which the speaker's clock is fast.
    pub fn ppm(self) -> f64 {
        if let Network::Drift(ppm) = self { f64::from(ppm) } else { 0.0 }
    }

    /// Whether another seed makes another network.
    pub fn is_chance(self) -> bool {
        self.loses() || self == Network::Jitter
    }

    pub fn loses(self) -> bool {
        matches!(self, Network::Loss(_) | Network::Burst)
    }

    /// How often the talk is repeated.
    pub fn rounds(self) -> usize {
        if matches!(self, Network::Drift(_)) { DRIFT_ROUNDS } else { 1 }
    }

    /// When each of `count` packets of `packet` audio arrives, in the order of arrival. A packet leaves
    /// when its last sample is spoken.
    pub fn arrivals(self, count: usize, packet: Duration, pass: u64) -> Vec<Arrival> {
        let mut chance = Chance(Entropy::from_number(1_000 + pass));
        let mut in_burst = false;
        let mut arrivals = Vec::with_capacity(count);
        for number in 0..count {
            let lost = match self {
                Network::Loss(percent) => chance.is(f64::from(percent) / 100.0),
                Network::Burst => {
                    in_burst = chance.is(if in_burst { 1.0 - BURST_ENDS } else { BURST_BEGINS });
                    in_burst
                }
                Network::Clean | Network::Jitter | Network::Drift(_) => false,
            };
            let longer = match self {
                Network::Jitter => JITTER_MAX.mul_f64(chance.share()),
                _ => Duration::ZERO,
            };
            if !lost {
                let sent = packet.mul_f64((number + 1) as f64 / (1.0 + self.ppm() / 1e6));
                arrivals.push(Arrival { packet: number, at: sent + WAY + longer });
            }
        }
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals
    }
}

struct Chance(Entropy);

impl Chance {
    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        f64::from(self.0.u32()) / f64::from(u32::MAX)
    }

    fn is(&mut self, probability: f64) -> bool {
        self.share() < probability
    }
}
