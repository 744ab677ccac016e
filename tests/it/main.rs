mod oracle_g722;

mod schema;
mod oracle_sdp;
