mod oracle_g722;
