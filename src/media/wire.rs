//! The fixed RTP header, read and written here until the `rtp` module carries it.
pub struct RtpPacket; pub struct RtpView<'a>{pub marker:bool,pub payload_type:u8,pub sequence:u16,pub timestamp:u32,pub ssrc:u32,pub payload:&'a [u8]}
impl RtpPacket { pub fn parse(b:&[u8])->Result<RtpView<'_>,()> { if b.len()<12 {return Err(())} Ok(RtpView{marker:b[1]&128!=0,payload_type:b[1]&127,sequence:u16::from_be_bytes([b[2],b[3]]),timestamp:u32::from_be_bytes([b[4],b[5],b[6],b[7]]),ssrc:u32::from_be_bytes([b[8],b[9],b[10],b[11]]),payload:&b[12..]}) } }
pub struct RtpHeader{pub marker:bool,pub payload_type:u8,pub sequence:u16,pub timestamp:u32,pub ssrc:u32}
impl RtpHeader { pub fn write(&self,b:&mut [u8])->usize { b[0]=128; b[1]=self.payload_type|if self.marker{128}else{0}; b[2..4].copy_from_slice(&self.sequence.to_be_bytes()); b[4..8].copy_from_slice(&self.timestamp.to_be_bytes()); b[8..12].copy_from_slice(&self.ssrc.to_be_bytes()); 12 } }
#[derive(Default)] pub struct Receiver; pub struct E{pub duration:u32}
impl E{pub fn digit(&self)->Option<char>{None}}
impl Receiver{pub fn receive(&mut self,_t:u32,_p:&[u8])->Option<E>{None}}
