mod oracle_g722;

mod schema;
