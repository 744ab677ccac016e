//! What an offer/answer exchange costs: once for each call and each re-INVITE. Figures only; nothing
//! here passes or fails.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use voxedge::codec::CodecKind;
use voxedge::ground::Entropy;
use voxedge::sdp::{LocalMedia, OfferAnswer, text};

const TRUNK: &[u8] = include_bytes!("../fixtures/sdp/cisco-cube.sdp");
const PHONE: &[u8] = include_bytes!("../fixtures/sdp/linphone.sdp");

fn local() -> LocalMedia {
    LocalMedia {
        address: "203.0.113.1".parse().expect("address"),
        port: 30_000,
        ptime_ms: 20,
        codecs: vec![CodecKind::Opus, CodecKind::G722, CodecKind::Pcmu, CodecKind::Pcma],
        telephone_event: true,
        opus_fec: true,
        extended: Default::default(),
        silence_suppression: false,
        srtp: Default::default(),
        own: Default::default(),
    }
}

fn offer_answer(criterion: &mut Criterion) {
    let local = local();
    for (name, offer) in [("trunk", TRUNK), ("phone", PHONE)] {
        criterion.bench_function(&format!("sdp/parse/{name}"), |bencher| {
            bencher.iter(|| text::parse(black_box(offer)));
        });
        criterion.bench_function(&format!("sdp/answer/{name}"), |bencher| {
            let answer = |mut exchange: OfferAnswer| exchange.answer(black_box(offer), &local);
            bencher.iter_batched(
                || OfferAnswer::new(1, &mut Entropy::from_number(1)),
                answer,
                BatchSize::SmallInput,
            );
        });
    }
    criterion.bench_function("sdp/late_offer", |bencher| {
        let exchange = |mut exchange: OfferAnswer| {
            black_box(exchange.offer(&local));
            exchange.accept_answer(black_box(TRUNK))
        };
        bencher.iter_batched(
            || OfferAnswer::new(1, &mut Entropy::from_number(1)),
            exchange,
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, offer_answer);
criterion_main!(benches);
