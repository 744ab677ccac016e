//! tmp
use super::jitter::Stamp; use crate::ground::*; use std::net::SocketAddr;
#[derive(Default)] pub(super) struct Reception{pub lost:u64,pub jitter_us:u32,pub jitter_max_us:u32,pub round_trip_us:u32}
pub(super) struct Control;
impl Control { pub(super) fn new(_:&str,_:u32,_:Entropy)->Control{Control} pub(super) fn handle_received(&mut self,_:Instant,_:&Stamp,_:crate::codec::CodecKind){} 
pub(super) fn handle_packet(&mut self,_:Now,_:SocketAddr,_:&[u8])->bool{true} pub(super) fn start(&mut self,_:Instant){} pub(super) fn deadline(&self)->Option<Instant>{None} pub(super) fn reception(&self)->Reception{Reception::default()} }
