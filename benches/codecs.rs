//! One frame of 20 ms (iLBC: 30) through each codec, both ways: `cargo bench --bench codecs`. Speech is the
//! fixture's sentence; every second pass starts it over, with the codec's state going on.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use voxedge::codec::resample::Resampler;
use voxedge::codec::{CodecFormat, CodecKind, Decoder, Encoder, EncoderSettings, IlbcMode};

/// The sentence at 8, 16 or 24 kHz, by dropping or doubling samples: the pitch of the speech does
/// not matter here, its dynamics do.
fn speech(hz: u32) -> Vec<i16> {
    let sentence = include_bytes!("../fixtures/pcm/sentence_16k.s16le");
    let pcm = sentence.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    match hz {
        8_000 => pcm.step_by(2).collect(),
        24_000 => pcm.enumerate().flat_map(|(n, s)| vec![s; 1 + n % 2]).collect(),
        _ => pcm.collect(),
    }
}

fn frames(c: &mut Criterion) {
    let plain = EncoderSettings::default();
    let fast = EncoderSettings { complexity: 0, ..plain };
    let fec = EncoderSettings { fec: true, ..plain };
    for (name, kind, hz, settings) in [
        ("pcmu", CodecKind::Pcmu, 8_000, plain),
        ("pcma", CodecKind::Pcma, 8_000, plain),
        ("g722", CodecKind::G722, 16_000, plain),
        ("opus_16k_c5", CodecKind::Opus, 16_000, plain),
        ("opus_16k_c0", CodecKind::Opus, 16_000, fast),
        ("opus_16k_c5_fec", CodecKind::Opus, 16_000, fec),
        ("opus_24k_c5", CodecKind::Opus, 24_000, plain),
        ("ilbc_30ms", CodecKind::Ilbc, 8_000, plain),
        ("g7221_32k", CodecKind::G7221, 16_000, plain),
        ("amr_wb", CodecKind::AmrWb, 16_000, plain),
    ] {
        if !kind.is_available() {
            eprintln!("{name}: left out, its libraries are missing");
            continue;
        }
        let frame = hz as usize / 1_000 * if kind == CodecKind::Ilbc { 30 } else { 20 };
        let pcm = speech(hz);
        let mut encoder = Encoder::new(kind, hz, settings).expect("a rate of the codec");
        let mut decoder = Decoder::new(kind, hz).expect("a rate of the codec");
        let mut payload = [0u8; 1_275];
        let mut payloads = Vec::new();
        for part in pcm.chunks_exact(frame) {
            let len = encoder.encode(part, &mut payload).expect("a whole frame");
            payloads.push(payload[..len].to_vec());
        }
        let mut out = vec![0i16; frame];
        let mut sources = pcm.chunks_exact(frame).cycle();
        c.bench_function(&format!("{name}/encode"), |b| {
            b.iter(|| encoder.encode(black_box(sources.next().unwrap()), &mut payload));
        });
        let mut received = payloads.iter().cycle();
        c.bench_function(&format!("{name}/decode"), |b| {
            b.iter(|| decoder.decode(black_box(received.next().unwrap()), &mut out));
        });
        c.bench_function(&format!("{name}/conceal_1_in_10"), |b| {
            let mut frames = 0;
            b.iter(|| {
                frames += 1;
                match frames % 10 {
                    0 => decoder.conceal(&mut out),
                    _ => drop(decoder.decode(received.next().unwrap(), &mut out)),
                }
            });
        });
    }
}

/// One 20 ms frame from one rate to another.
fn rates(c: &mut Criterion) {
    for (from_hz, to_hz) in
        [(8_000, 16_000), (16_000, 8_000), (24_000, 8_000), (48_000, 8_000), (24_000, 16_000)]
    {
        let frame = from_hz as usize / 50;
        let mut resampler = Resampler::continuous(from_hz, to_hz).expect("known rates");
        let pcm = speech(from_hz.min(24_000));
        let mut sources = pcm.chunks_exact(frame).cycle();
        let mut out = [0; 960];
        c.bench_function(&format!("resample/{from_hz}_to_{to_hz}"), |b| {
            b.iter(|| resampler.resample(black_box(sources.next().unwrap()), &mut out));
        });
    }
}

/// A 20 ms packet of one codec into one of another: decoded, resampled where the rates differ,
/// encoded.
fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("bridge");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_millis(300));
    let kinds = CodecKind::ALL.into_iter().filter(|kind| kind.is_available());
    let kinds: Vec<CodecKind> = kinds.collect();
    for from in kinds.iter().copied() {
        for to in kinds.iter().copied().filter(|to| *to != from) {
            bridge(&mut group, from, to);
        }
    }
}

fn bridge(group: &mut BenchmarkGroup<'_, WallTime>, from: CodecKind, to: CodecKind) {
    let settings = EncoderSettings::default();
    let (from_hz, to_hz) = (from.pcm_rate(16_000), to.pcm_rate(16_000));
    let encoder = |kind, hz| Encoder::with_format(kind, format(kind), hz, settings);
    let mut source = encoder(from, from_hz).expect("a rate of the codec");
    let mut target = encoder(to, to_hz).expect("a rate of the codec");
    let mut decoder = Decoder::with_format(from, format(from), from_hz).expect("the same rate");
    let mut resampler = Resampler::continuous(from_hz, to_hz).expect("known rates");
    let mut payload = [0u8; 1_275];
    let mut payloads = Vec::new();
    for part in speech(from_hz).chunks_exact(from_hz as usize / 50) {
        let len = source.encode(part, &mut payload).expect("a whole frame");
        payloads.push(payload[..len].to_vec());
    }
    let (mut decoded, mut resampled, mut packet) = ([0; 960], [0; 960], [0; 1_275]);
    let mut received = payloads.iter().cycle();
    group.bench_function(format!("{}_to_{}", from.encoding_name(), to.encoding_name()), |b| {
        b.iter(|| {
            let payload = received.next().expect("it goes round");
            let count = decoder.decode(black_box(payload), &mut decoded).expect("our own payload");
            let pcm = match from_hz == to_hz {
                true => &decoded[..count],
                false => {
                    let _ = resampler.resample(&decoded[..count], &mut resampled);
                    &resampled[..to_hz as usize / 50]
                }
            };
            target.encode(pcm, &mut packet)
        });
    });
}

/// In packets of 20 ms.
fn format(kind: CodecKind) -> CodecFormat {
    match kind {
        CodecKind::Ilbc => CodecFormat::Ilbc(IlbcMode::Ms20),
        _ => CodecFormat::Usual,
    }
}

criterion_group!(benches, frames, rates, pairs);
criterion_main!(benches);
