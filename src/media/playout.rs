//! Agent audio that waits for its time on the wire, as bytes: G.711 is kept encoded (8 kB a second),
//! everything else as 16-bit samples. It is bounded; what does not fit is refused and counted by its
//! owner. A little storage is there from the start, which a steady stream never leaves. It doubles while
//! more waits than it holds; a long answer reserves the whole, which is written from its start, so
//! that memory is touched only as deep as the queue has been. After a long answer was played there is
//! little again; nothing else is allocated.

/// A bounded first-in, first-out queue of bytes.
#[derive(Debug)]
pub struct PlayoutQueue {
    bytes: Vec<u8>,
    /// Bytes at the start of `bytes` that were played already.
    played: usize,
    /// Bytes that may wait.
    limit: usize,
    /// Bytes that there is room for from the start.
    first: usize,
    /// The deepest place that was written since the storage was reserved.
    touched: usize,
}

/// Played bytes at the front that are worth a move of the rest. With bursts of 100 ms of G.711 the
/// queue then stays within its first 2 KiB.
const COMPACT_BYTES: usize = 512;
/// Touched bytes that are kept: eight pages. Two system calls are too dear for less.
const KEPT_BYTES: usize = 32 * 1024;

impl PlayoutQueue {
    /// An empty queue for `limit` bytes, with room for the `first` of them until more is needed.
    pub fn new(limit: usize, first: usize) -> PlayoutQueue {
        let first = first.min(limit);
        PlayoutQueue { bytes: Vec::with_capacity(first), played: 0, limit, first, touched: 0 }
    }

    /// Bytes that may wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Appends as much of `bytes` as fits, in whole `unit`s (bytes of one sample); gives how many
    /// bytes were taken.
    pub fn push(&mut self, bytes: &[u8], unit: usize) -> usize {
        self.make_room(bytes.len());
        let room = self.limit.saturating_sub(self.bytes.len());
        let taken = bytes.len().min(room - room % unit.max(1));
        self.widen(taken);
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.touched = self.touched.max(self.bytes.len());
        taken
    }

    /// Moves up to `out.len()` bytes out; gives how many.
    pub fn pop(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.len());
        out[..count].copy_from_slice(&self.bytes[self.played..self.played + count]);
        self.skip(count);
        count
    }

    /// Copies up to `out.len()` bytes of what waits; gives how many. They wait on.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.len());
        out[..count].copy_from_slice(&self.bytes[self.played..self.played + count]);
        count
    }

    /// Puts `bytes` in the place of the first `count` that wait. False when there is no room for more.
    pub fn replace_front(&mut self, count: usize, bytes: &[u8]) -> bool {
        let count = count.min(self.len());
        let lacking = bytes.len().saturating_sub(self.played + count);
        if self.bytes.len() + lacking > self.limit {
            return false;
        }
        if lacking > 0 {
            self.widen(lacking);
            let end = self.bytes.len();
            self.bytes.resize(end + lacking, 0);
            self.bytes.copy_within(self.played + count..end, self.played + count + lacking);
            self.touched = self.touched.max(self.bytes.len());
        }
        let start = self.played + count + lacking - bytes.len();
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.played = start;
        if self.is_empty() {
            self.clear();
        }
        true
    }

    /// Drops up to `count` bytes unplayed; gives how many.
    pub fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.len());
        self.played += count;
        if self.is_empty() {
            self.clear();
        }
        count
    }

    /// Empties the queue; gives how many bytes were dropped.
    pub fn clear(&mut self) -> usize {
        let dropped = self.len();
        self.bytes.clear();
        self.played = 0;
        if self.touched > KEPT_BYTES {
            self.bytes = Vec::with_capacity(self.first);
            self.touched = 0;
        }
        dropped
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.played
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves what waits to the front, when that is cheap (at most as much as was played since) or
    /// the end of the storage is reached.
    fn make_room(&mut self, wanted: usize) {
        let cheap = self.played >= COMPACT_BYTES && self.played >= self.len();
        let end = self.bytes.capacity().min(self.limit);
        if cheap || (self.played > 0 && self.bytes.len() + wanted > end) {
            self.bytes.copy_within(self.played.., 0);
            self.bytes.truncate(self.bytes.len() - self.played);
            self.played = 0;
        }
    }

    /// Doubles the room until it holds `more` bytes; from so much on that it would not be kept it
    /// takes the whole.
    fn widen(&mut self, more: usize) {
        let wanted = self.bytes.len() + more;
        if wanted <= self.bytes.capacity() {
            return;
        }
        let room = match wanted.next_power_of_two() {
            room if room <= KEPT_BYTES => room.min(self.limit),
            _ => self.limit,
        };
        self.bytes.reserve_exact(room - self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 256 * 1024;
    const FIRST: usize = 2 * 1024;

    #[test]
    fn bytes_come_out_as_they_went_in_across_many_moves() {
        let mut queue = PlayoutQueue::new(LIMIT, FIRST);
        let (mut written, mut read) = (0u32, 0u32);
        for round in 0..20_000u32 {
            let chunk: Vec<u8> = (0..round % 700).map(|i| (written + i) as u8).collect();
            written += queue.push(&chunk, 1) as u32;
            let mut out = [0; 351];
            let count = queue.pop(&mut out);
            for byte in &out[..count] {
                assert_eq!(*byte, read as u8);
                read += 1;
            }
        }
        assert_eq!(queue.bytes.capacity(), FIRST);
        assert_eq!((written - read) as usize, queue.len());
    }

    #[test]
    fn a_full_queue_takes_whole_samples_only_and_a_cleared_one_takes_all_again() {
        let mut queue = PlayoutQueue::new(LIMIT, FIRST);
        assert_eq!(queue.push(&[1], 1), 1);
        assert_eq!(queue.push(&vec![2; LIMIT], 2), LIMIT - 2);
        assert_eq!(queue.push(&[3, 3], 2), 0);
        assert_eq!(queue.clear(), LIMIT - 1);
        assert!(queue.is_empty());
        assert_eq!(queue.push(&[3, 3], 2), 2);
    }

    #[test]
    fn a_steady_stream_stays_at_the_front_of_its_storage() {
        let mut queue = PlayoutQueue::new(LIMIT, FIRST);
        queue.push(&[0; 320], 1);
        for _ in 0..5_000 {
            queue.push(&[0; 160], 1);
            queue.skip(160);
            assert!(queue.bytes.len() <= COMPACT_BYTES + 640);
        }
    }

    #[test]
    fn what_is_in_front_is_replaced_by_less_as_much_or_more() {
        for played in [0, 2, 9] {
            for (count, bytes, expected) in [
                (3, &b"xy"[..], Some(&b"xydef"[..])),
                (3, b"xyz", Some(b"xyzdef")),
                (3, b"vwxyz", Some(b"vwxyzdef")),
                (9, b"x", Some(b"x")),
                (6, b"", Some(b"")),
                (0, b"12345678", Some(b"12345678abcdef")),
                (0, b"0123456789abcdef", None),
            ] {
                let mut queue = PlayoutQueue::new(20, 20);
                queue.push(&vec![b'-'; played], 1);
                queue.push(b"abcdef", 1);
                queue.skip(played);
                let mut out = [0; 20];
                assert_eq!(queue.peek(&mut out[..4]), 4);
                assert_eq!((&out[..4], queue.len()), (&b"abcd"[..], 6));
                assert_eq!(queue.replace_front(count, bytes), expected.is_some(), "{bytes:?}");
                let len = queue.pop(&mut out);
                assert_eq!(&out[..len], expected.unwrap_or(b"abcdef"), "{played} {bytes:?}");
                assert_eq!(queue.bytes.capacity(), 20);
            }
        }
    }

    #[test]
    fn the_storage_of_a_long_answer_is_given_back_when_it_was_played() {
        let mut queue = PlayoutQueue::new(LIMIT, FIRST);
        queue.push(&[1; KEPT_BYTES], 1);
        queue.skip(KEPT_BYTES);
        assert_eq!(queue.touched, KEPT_BYTES, "so much is kept");
        queue.push(&[1; KEPT_BYTES + 1], 1);
        queue.skip(KEPT_BYTES);
        assert_eq!(queue.touched, KEPT_BYTES + 1, "a byte still waits");
        queue.skip(1);
        assert_eq!((queue.touched, queue.bytes.capacity()), (0, FIRST));
    }
}
