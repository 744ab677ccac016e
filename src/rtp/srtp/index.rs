//! Where a packet stands in its stream: the index that its sequence number means (RFC 3711 §3.3.1,
//! appendix A) and the window that knows which ones were seen (§3.3.2).

/// Packets that a packet may be late (RFC 3711 §3.3.2 asks for 64 at least).
pub(super) const WINDOW: u64 = 128;

/// The highest index that was accepted, and which of those before it were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    highest: u64,
    /// Bit `n`: the index `highest - n` was accepted.
    seen: u128,
}

impl Window {
    /// A window that begins with its first packet.
    pub(super) fn starting(index: u64) -> Window {
        Window { highest: index, seen: 1 }
    }

    /// The index that `sequence` most likely means. `None` when it would lie before the stream's
    /// beginning.
    pub(super) fn index_of(&self, sequence: u16) -> Option<u64> {
        nearest(self.highest, sequence)
    }

    /// Whether an index was neither accepted before nor is too old to tell.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            None => true,
            Some(behind) => behind < WINDOW && self.seen >> behind & 1 == 0,
        }
    }

    /// Notes an accepted packet.
    pub(super) fn accept(&mut self, index: u64) {
        match index.checked_sub(self.highest) {
            Some(ahead) => {
                let moved = u32::try_from(ahead).ok().and_then(|by| self.seen.checked_shl(by));
                self.seen = moved.unwrap_or(0) | 1;
                self.highest = index;
            }
            None => {
                let behind = self.highest - index;
                self.seen |= if behind < WINDOW { 1 << behind } else { 0 };
            }
        }
    }
}

/// The index closest to `highest` whose low 16 bits are `sequence` (§3.3.1).
pub(super) fn nearest(highest: u64, sequence: u16) -> Option<u64> {
    let rollover = highest >> 16;
    let (last, number) = (highest & 0xFFFF, u64::from(sequence));
    let rollover = if last < 0x8000 && number > last + 0x8000 {
        rollover.checked_sub(1)?
    } else if last >= 0x8000 && last - 0x8000 > number {
        rollover + 1
    } else {
        rollover
    };
    (rollover <= u64::from(u32::MAX)).then_some(rollover << 16 | number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_wrap_are_told_apart() {
        for (highest, sequence, index) in [
            (0, 1, Some(1)),
            (0, 0x8000, Some(0x8000)),
            (0, 0x8001, None),
            (0x7FFF, 0xFFFF, Some(0xFFFF)),
            (0x7FFE, 0xFFFF, None),
            (0x8000, 0, Some(0)),
            (0x8001, 0, Some(0x1_0000)),
            (0xFFFF, 0, Some(0x1_0000)),
            (0xFFFF, 0x7FFE, Some(0x1_7FFE)),
            (0xFFFF, 0x7FFF, Some(0x7FFF)),
            (0x1_0000, 0xFFFF, Some(0xFFFF)),
            (0x1_0000, 0x8000, Some(0x1_8000)),
            (0x1_0000, 0x8001, Some(0x8001)),
            (0xFFFF_FFFF_FFFF, 0, None),
            (0xFFFF_FFFF_FFFF, 0xFFFE, Some(0xFFFF_FFFF_FFFE)),
        ] {
            assert_eq!(nearest(highest, sequence), index, "{highest:x} {sequence:x}");
        }
    }

    #[test]
    fn each_index_is_accepted_once_and_none_that_is_too_old() {
        let mut window = Window::starting(1_000);
        for (index, fresh) in [
            (1_000, false),
            (999, true),
            (999, false),
            (1_100, true),
            (1_000, false),
            (973, true),
            (972, false),
            (1_001, true),
            (1_001, false),
            (1_227, true),
            (1_100, false),
            (1_101, true),
            (1_099, false),
            (10_000, true),
            (9_873, true),
            (9_872, false),
            (9_999, true),
            (u64::from(u32::MAX) << 16, true),
            (10_001, false),
        ] {
            assert_eq!(window.is_fresh(index), fresh, "{index}");
            if fresh {
                window.accept(index);
            }
        }
    }
}
