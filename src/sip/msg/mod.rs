//! The SIP message layer (RFC 3261 §7, §19, §20, §25): one parse over the received bytes, typed
//! views of what calls need, and a builder for what we send. A message keeps its `Bytes` and one
//! list of header offsets; views borrow from it. Never repairs what it reads, never re-parses a
//! body, never writes CR, LF or NUL that came from elsewhere.

pub mod build;
mod fault;
pub mod frame;
mod head;
mod headers;
mod lex;
mod message;
mod method;
mod name;
mod name_addr;
mod uri;
mod via;

pub use build::{BuildFault, Builder};
pub use fault::{FaultReason, ParseFault, stateless_answer};
pub use headers::{CSeq, Headers};
pub use lex::{Params, is_token, quoted_end, split_commas, unquote};
pub use message::{Framing, Message, Request, Response};
pub use method::Method;
pub use name::Name;
pub use name_addr::NameAddr;
pub use uri::{Host, Scheme, Uri, UriFault};
pub use via::Via;
