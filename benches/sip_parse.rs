//! The cost of reading and answering an INVITE as a trunk sends it, in time and in allocations.

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use voxedge::sip::msg::{Builder, Framing, Message};
use voxedge::sip::status::StatusLine;

/// The system's allocator with a count of its calls.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator that counts can only be written so")]
// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the one that is needed here.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const INVITE: &[u8] = include_bytes!("../fixtures/sip/broadworks-invite.sip");

fn allocations<T>(act: impl FnOnce() -> T) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let result = act();
    let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    drop(result);
    count
}

fn sip_parse(criterion: &mut Criterion) {
    let bytes = Bytes::copy_from_slice(INVITE);
    let parse = || Message::parse(bytes.clone(), Framing::Datagram);
    let Ok(Message::Request(request)) = parse() else { panic!("the fixture is well formed") };
    let source = "192.0.2.99:5060".parse().expect("an address");
    let answer = || Builder::response(&request, &StatusLine::of(100), source).finish();
    println!("allocations: parse {}, answer {}", allocations(parse), allocations(answer));
    criterion
        .bench_function("parse an INVITE of 1.1 kB", |bencher| bencher.iter(|| black_box(parse())));
    criterion.bench_function("answer it with 100", |bencher| bencher.iter(|| black_box(answer())));
}

criterion_group!(benches, sip_parse);
criterion_main!(benches);
