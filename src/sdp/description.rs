//! The text of a session description on its way from one room to the next. It may hold SRTP keys
//! (`a=crypto`, RFC 4568), so that it never prints.

use bytes::Bytes;
use std::fmt;

/// A description as it goes over the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct DescriptionText(Bytes);

impl DescriptionText {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For the body of a message.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for DescriptionText {
    /// Without the room that the text grew in: it is kept as long as the call.
    fn from(text: String) -> Self {
        DescriptionText(Bytes::from(text.into_boxed_str().into_boxed_bytes()))
    }
}

impl From<Bytes> for DescriptionText {
    fn from(text: Bytes) -> Self {
        DescriptionText(text)
    }
}

impl fmt::Debug for DescriptionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DescriptionText({} bytes)", self.0.len())
    }
}
