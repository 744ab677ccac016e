//! The one door to the AMR-WB speech coders: libopencore-amrwb decodes, libvo-amrwbenc encodes. Both
//! are opened when the process first asks, since whoever runs the daemon decides whether they are
//! installed; nothing is linked. All `unsafe` of this project's own code stands here.
//!
//! The whole interface of both is seven functions of C. What keeps their calls sound:
//!
//! - A function pointer lives as long as its library, which is never closed.
//! - A state is made by `init`, used through `&mut` by one owner, and given to `exit` once.
//! - The decoder reads at most [`STORED_BYTES_MAX`] octets and writes [`FRAME_SAMPLES`] samples; the
//!   encoder reads [`FRAME_SAMPLES`] samples and writes at most [`STORED_BYTES_MAX`] octets. Both
//!   buffers are arrays of these lengths.
//! - The decoder looks frame types up in tables without a check: only types that exist reach it.

#![expect(unsafe_code, reason = "two C libraries that have no binding; seven functions")]

use super::payload::{Mode, NO_DATA, SID, SPEECH_LOST, STORED_BYTES_MAX, Stored};
use libloading::Library;
use std::ffi::{c_int, c_short, c_uchar, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// Samples of a frame: 20 ms at 16 kHz.
pub const FRAME_SAMPLES: usize = 320;

/// File names of the libraries, as the packages libopencore-amrwb0 and libvo-amrwbenc0 install them.
const DECODER_FILE: &str = "libopencore-amrwb.so.0";
const ENCODER_FILE: &str = "libvo-amrwbenc.so.0";

type Init = unsafe extern "C" fn() -> *mut c_void;
type Exit = unsafe extern "C" fn(*mut c_void);
type Decode = unsafe extern "C" fn(*mut c_void, *const c_uchar, *mut c_short, c_int);
type Encode =
    unsafe extern "C" fn(*mut c_void, c_int, *const c_short, *mut c_uchar, c_int) -> c_int;

/// The functions of both libraries.
pub struct Functions {
    decoder_init: Init,
    decoder_decode: Decode,
    decoder_exit: Exit,
    encoder_init: Init,
    encoder_encode: Encode,
    encoder_exit: Exit,
    /// Never dropped: the functions above lie in them.
    _libraries: [Library; 2],
}

/// Both libraries, opened by the first call; `None` when one is not installed, and then for as long
/// as the process lives.
pub fn functions() -> Option<&'static Functions> {
    static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| open(DECODER_FILE, ENCODER_FILE).ok()).as_ref()
}

fn open(decoder: &str, encoder: &str) -> Result<Functions, libloading::Error> {
    // SAFETY: opening runs the libraries' initialisers; these two have none but the C runtime's. Each
    // symbol has the type that the library's header declares (dec_if.h of opencore-amrwb 0.1,
    // enc_if.h of vo-amrwbenc 0.1), which the soname's number stands for.
    unsafe {
        let (decoder, encoder) = (Library::new(decoder)?, Library::new(encoder)?);
        Ok(Functions {
            decoder_init: *decoder.get::<Init>(b"D_IF_init\0")?,
            decoder_decode: *decoder.get::<Decode>(b"D_IF_decode\0")?,
            decoder_exit: *decoder.get::<Exit>(b"D_IF_exit\0")?,
            encoder_init: *encoder.get::<Init>(b"E_IF_init\0")?,
            encoder_encode: *encoder.get::<Encode>(b"E_IF_encode\0")?,
            encoder_exit: *encoder.get::<Exit>(b"E_IF_exit\0")?,
            _libraries: [decoder, encoder],
        })
    }
}

/// A speech decoder's state.
pub struct SpeechDecoder {
    functions: &'static Functions,
    state: NonNull<c_void>,
}

// SAFETY: the state is memory of its own without ties to a thread, and is reached by its owner only.
unsafe impl Send for SpeechDecoder {}

impl SpeechDecoder {
    /// `None` when a library is missing or has no memory.
    pub fn new() -> Option<SpeechDecoder> {
        let functions = functions()?;
        // SAFETY: init takes nothing and gives a state or null.
        let state = NonNull::new(unsafe { (functions.decoder_init)() })?;
        Some(SpeechDecoder { functions, state })
    }

    /// Decodes one frame: speech, SID, or what stands for a lost one or for none.
    pub fn decode(&mut self, frame: &Stored, pcm: &mut [i16; FRAME_SAMPLES]) {
        let mut octets = *frame.octets();
        match frame.frame_type() {
            0..SID | SPEECH_LOST | NO_DATA => {}
            // The last four bits of a SID name the sender's speech mode; a wrong one is none.
            SID if octets[5] & 15 < Mode::COUNT => {}
            SID => octets[5] &= 0xF0,
            _ => octets = *Stored::empty(SPEECH_LOST).octets(),
        }
        // SAFETY: the state is alive and ours; the arrays have the lengths of the head's third point,
        // and the frame's type exists.
        unsafe {
            let (bits, samples) = (octets.as_ptr(), pcm.as_mut_ptr());
            (self.functions.decoder_decode)(self.state.as_ptr(), bits, samples, 0);
        }
    }
}

impl Drop for SpeechDecoder {
    fn drop(&mut self) {
        // SAFETY: the state came from init, and nothing uses it after this.
        unsafe { (self.functions.decoder_exit)(self.state.as_ptr()) }
    }
}

/// A speech encoder's state.
pub struct SpeechEncoder {
    functions: &'static Functions,
    state: NonNull<c_void>,
}

// SAFETY: as for the decoder.
unsafe impl Send for SpeechEncoder {}

impl SpeechEncoder {
    /// `None` when a library is missing or has no memory.
    pub fn new() -> Option<SpeechEncoder> {
        let functions = functions()?;
        // SAFETY: init takes nothing and gives a state or null.
        let state = NonNull::new(unsafe { (functions.encoder_init)() })?;
        Some(SpeechEncoder { functions, state })
    }

    /// Encodes one frame; with `dtx`, silence becomes SID frames and frames without data.
    pub fn encode(&mut self, mode: Mode, pcm: &[i16; FRAME_SAMPLES], dtx: bool) -> Stored {
        let mut octets = [0; STORED_BYTES_MAX];
        // SAFETY: the state is alive and ours, the mode is one of nine, and the arrays have the
        // lengths of the head's third point.
        unsafe {
            let (samples, bits) = (pcm.as_ptr(), octets.as_mut_ptr());
            let mode = c_int::from(mode.number());
            (self.functions.encoder_encode)(
                self.state.as_ptr(),
                mode,
                samples,
                bits,
                c_int::from(dtx),
            );
        }
        Stored::from_octets(octets)
    }
}

impl Drop for SpeechEncoder {
    fn drop(&mut self) {
        // SAFETY: the state came from init, and nothing uses it after this.
        unsafe { (self.functions.encoder_exit)(self.state.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_installed_is_a_fault_and_no_crash() {
        assert!(open("libopencore-amrwb.so.none", ENCODER_FILE).is_err());
        assert!(open(DECODER_FILE, "libvo-amrwbenc.so.none").is_err());
        // A library that is there, without the functions.
        assert!(open("libc.so.6", "libc.so.6").is_err());
    }
}
