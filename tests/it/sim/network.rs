//! The network between PBX and edge: seeded latency, loss and duplication for each direction;
//! different latencies reorder. A scenario may also lose named messages.

use std::time::Duration;
use voxedge::ground::Entropy;

/// One direction.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Shortest and longest time on the way.
    pub latency_ms: (u64, u64),
    pub loss_permille: u64,
    pub duplicate_permille: u64,
}

impl Path {
    /// Every packet arrives once, after this time.
    pub fn steady(latency_ms: u64) -> Path {
        Path { latency_ms: (latency_ms, latency_ms), loss_permille: 0, duplicate_permille: 0 }
    }
}

/// Both directions, for signalling and for media.
pub struct Network {
    pub up: Path,
    pub down: Path,
    pub media: Path,
    /// Messages to lose: how their label begins, and how many of them.
    pub lose: Vec<(&'static str, u32)>,
    pub entropy: Entropy,
}

impl Network {
    /// Five milliseconds either way, and nothing goes wrong.
    pub fn steady(entropy: Entropy) -> Network {
        let path = Path::steady(5);
        Network { up: path, down: path, media: path, lose: Vec::new(), entropy }
    }

    /// True when the scenario wants this message lost.
    pub fn is_cursed(&mut self, label: &str) -> bool {
        let cursed =
            self.lose.iter_mut().find(|(start, left)| *left > 0 && label.starts_with(start));
        match cursed {
            Some((_, left)) => {
                *left -= 1;
                true
            }
            None => false,
        }
    }

    /// After which times a packet arrives: none when it is lost, two when it is duplicated.
    pub fn arrivals(&mut self, path: Path) -> [Option<Duration>; 2] {
        if self.entropy.below(1_000) < path.loss_permille {
            return [None, None];
        }
        let first = self.latency(path);
        let copied = self.entropy.below(1_000) < path.duplicate_permille;
        [Some(first), copied.then(|| self.latency(path))]
    }

    fn latency(&mut self, path: Path) -> Duration {
        let (from, to) = path.latency_ms;
        self.entropy.duration(Duration::from_millis(from), Duration::from_millis(to))
    }
}
