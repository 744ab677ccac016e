mod media_plane;
mod billing;
mod hot_path;
mod hostile_media;
mod oracle_g722;

mod schema;
mod oracle_sdp;
mod torture_parse;
mod oracle_sip;
mod sip_mutations;
mod standin;
