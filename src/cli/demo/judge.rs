//! When a scene of the demo has succeeded. An echo is held against what its codec alone leaves, so that lost
//! frames, another codec or rate and a changed level fail in codecs that keep the waveform and in
//! those that do not; audio that was made longer or shorter in places, as for packets that came late, does
//! not.

use super::follow::Quality;
use super::measure;
use super::phone::PhoneReport;
use crate::billing::cdr::Cdr;
use std::fmt;

/// How a scene shall come out.
#[derive(Clone, Copy)]
pub enum Expect {
    /// The sentence comes back with at least this segmental SNR in dB, and nearly what the codec leaves.
    Echo { segmental_snr_db: f64 },
    /// The agent's sentence is heard.
    Voice,
    /// The call is refused with this status.
    Refused(u16),
}

/// Why it did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The call itself.
    Call(String),
    /// Only its sound, which a machine that stands still spoils too.
    Sound(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Fault::Call(words) | Fault::Sound(words)) = self;
        out.write_str(words)
    }
}

/// Share of the codec's segmental SNR that must be left: one frame in twenty lost leaves less.
const SNR_SHARE_LEAST: f64 = 0.96;
/// Share of the sound's energy that may be missing beyond what the codec changes.
const MISSING_MOST: f64 = 0.03;
/// By how much the echo may be louder or quieter than what was spoken, in dB.
const LEVEL_DB_MOST: f64 = 2.0;
/// Share of the speech that may lie where audio was made longer or shorter.
const TURNING_MOST: f64 = 0.1;
/// An agent below this level was not heard.
const VOICE_DBFS: f64 = -45.0;

/// What is wrong with a scene; `alone` is what the codec leaves of an echo.
pub fn judge(
    expect: &Expect,
    report: &PhoneReport,
    (quality, alone): (Option<&Quality>, Option<&Quality>),
    cdr: Option<&Cdr>,
) -> Option<Fault> {
    let Some(cdr) = cdr else {
        return Some(Fault::Call("the daemon has no record of the call".into()));
    };
    if let Expect::Refused(status) = expect {
        return (report.status != *status)
            .then(|| Fault::Call(format!("expected {status}, got {}", report.status)));
    }
    if report.status != 200 {
        let warning = report.warning.as_deref().unwrap_or("no warning");
        let words = format!("refused: {} {} ({warning})", report.status, report.reason);
        return Some(Fault::Call(words));
    }
    if cdr.deciminutes.count() == 0 {
        return Some(Fault::Call("an answered call was billed nothing".into()));
    }
    let sound = match (expect, quality, alone) {
        (Expect::Voice, ..) => {
            let level = measure::level_dbfs(&report.heard);
            (level < VOICE_DBFS).then(|| format!("the agent was not heard (level {level:.1} dBFS)"))
        }
        (Expect::Echo { segmental_snr_db }, Some(quality), Some(alone)) => {
            echo_fault(quality, alone, *segmental_snr_db)
        }
        (Expect::Echo { .. }, ..) => Some("the sentence was not found in what came back".into()),
        (Expect::Refused(_), ..) => None,
    };
    let late = cdr.media.map_or(0, |media| media.frames_late);
    let busy = match late {
        0 => String::new(),
        _ => format!("; {late} frames left late: this machine is busy, so try again"),
    };
    sound.map(|words| Fault::Sound(words + &busy))
}

/// What an echo lacks beside what the codec alone leaves.
fn echo_fault(quality: &Quality, alone: &Quality, snr_least: f64) -> Option<String> {
    let snr_least = snr_least.max(alone.segmental_snr_db * SNR_SHARE_LEAST);
    let likeness_least = (alone.correlation.powi(2) - MISSING_MOST).max(0.0).sqrt();
    let louder = quality.returned_dbfs - quality.sent_dbfs;
    let Quality { segmental_snr_db: snr, correlation: likeness, turning, .. } = *quality;
    if likeness < likeness_least {
        let words = "sound is missing or changed: likeness";
        return Some(format!("{words} {likeness:.2} is below {likeness_least:.2}"));
    }
    if snr < snr_least {
        return Some(format!("segmental SNR {snr:.1} dB is below {snr_least:.1} dB"));
    }
    if louder.abs() > LEVEL_DB_MOST {
        return Some(format!("the echo's level is {louder:+.1} dB from that of the sentence"));
    }
    let percent = turning * 100.0;
    (turning > TURNING_MOST)
        .then(|| format!("{percent:.0} % of the speech was made longer or shorter"))
}

#[cfg(test)]
mod tests {
    use super::super::alone::{self, compared, twice};
    use super::super::phone::sample_rate;
    use super::super::speech::{resample, sentence};
    use super::*;
    use crate::codec::CodecKind;
    use crate::codec::g711::Law;
    use std::sync::LazyLock;

    /// What each codec that is there leaves by itself.
    static ALONE: LazyLock<Vec<(CodecKind, Quality)>> = LazyLock::new(|| {
        let available = CodecKind::ALL.iter().filter(|codec| codec.is_available());
        available.map(|codec| (*codec, alone::echo(*codec).expect("heard"))).collect()
    });

    /// The verdict on what came back of the sentence in a codec.
    fn verdict(codec: CodecKind, heard: &[i16]) -> Option<String> {
        let (_, alone) = ALONE.iter().find(|one| one.0 == codec).expect("the codec is there");
        match compared(codec, heard) {
            Some(quality) => echo_fault(&quality, alone, 0.0),
            None => Some("not found".into()),
        }
    }

    fn whole(codec: CodecKind) -> Vec<i16> {
        twice(codec, 10, |_| true).expect("heard")
    }

    #[test]
    fn an_echo_is_good_wherever_its_frames_begin_and_where_it_was_stretched() {
        for (codec, _) in ALONE.iter() {
            let heard = whole(*codec);
            assert_eq!(verdict(*codec, &heard), None, "{codec:?}");
            let (middle, some) = (heard.len() / 2, sample_rate(*codec) as usize / 125);
            let longer = [&heard[..middle], &heard[middle - some..]].concat();
            assert_eq!(verdict(*codec, &longer), None, "{codec:?}, 8 ms longer");
        }
    }

    #[test]
    fn one_frame_in_twenty_lost_fails_in_every_codec() {
        for (codec, alone) in ALONE.iter() {
            for place in [3, 15] {
                let heard = twice(*codec, 0, |number| number % 20 != place).expect("heard");
                let quality = compared(*codec, &heard);
                assert!(verdict(*codec, &heard).is_some(), "{codec:?}: {quality:?} for {alone:?}");
            }
        }
    }

    #[test]
    fn half_the_level_silence_and_twice_the_rate_fail() {
        for (codec, _) in ALONE.iter() {
            let heard = whole(*codec);
            let half: Vec<i16> = heard.iter().map(|sample| sample / 2).collect();
            let fault = verdict(*codec, &half).expect("half the level");
            assert!(fault.starts_with("the echo's level is -"), "{codec:?}: {fault}");
            assert!(verdict(*codec, &vec![0; heard.len()]).is_some(), "{codec:?}: silence");
            let rate = sample_rate(*codec);
            let half = resample(&heard, rate, rate / 2);
            assert!(verdict(*codec, &half).is_some(), "{codec:?}: twice as fast");
        }
    }

    #[test]
    fn a_rate_that_is_a_little_wrong_and_speech_backwards_fail() {
        for codec in [CodecKind::Pcmu, CodecKind::Ilbc] {
            let heard = whole(codec);
            assert!(verdict(codec, &resample(&heard, 8_000, 7_920)).is_some(), "{codec:?}: 1 %");
            let backwards: Vec<i16> = heard.iter().rev().copied().collect();
            assert!(verdict(codec, &backwards).is_some(), "{codec:?}");
        }
    }

    #[test]
    fn another_codec_fails() {
        let sentence = sentence(8_000);
        let (mut bytes, mut heard) = (vec![0; sentence.len()], vec![0; sentence.len()]);
        Law::A.encode(&sentence, &mut bytes).expect("room");
        Law::Mu.decode(&bytes, &mut heard).expect("room");
        assert!(verdict(CodecKind::Pcmu, &heard).is_some());
        let narrow = resample(&resample(&sentence, 8_000, 4_000), 4_000, 8_000);
        assert!(verdict(CodecKind::Pcmu, &narrow).is_some(), "half the band");
        assert!(verdict(CodecKind::Pcma, &whole(CodecKind::Ilbc)).is_some());
    }
}
