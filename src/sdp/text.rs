//! The text of a session description (RFC 8866) as sections and attributes. The one door to
//! `sdp-types`. Only what an endpoint needs is read: `v=`, `c=`, `m=`, `a=` and of `b=` what bounds
//! RTCP; every other line,
//! known, obsolete or broken, is left aside, as are stray blanks and LF-only line ends. Nothing of
//! a peer's text is ever written out again but checked tokens of its `m=` lines.

use super::control;
use super::crypto::Crypto;
use crate::ground::limits;
use crate::media::plan::Direction;
use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};
use std::fmt;
use std::net::IpAddr;

/// A session description as it was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionDescription {
    /// The session-level `c=` address, without its TTL or count: a literal or a name.
    pub connection: Option<String>,
    pub attributes: Attributes,
    pub media: Vec<MediaSection>,
}

/// One `m=` line with what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaSection {
    /// `audio`, `video`, `image`, …; a token of RFC 8866 §9.
    pub media: String,
    /// Zero refuses the section or ends it.
    pub port: u16,
    /// The profile as written, for example `RTP/AVP`.
    pub proto: String,
    /// The formats in the peer's order of preference; at least one.
    pub formats: Vec<String>,
    pub connection: Option<String>,
    pub attributes: Attributes,
}

/// The `a=` lines of one level, in order. Keys in them are not printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// The value of the first `a=name:value`; empty for a bare `a=name`.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The values of every `a=name:value` in order. Names are case-sensitive (RFC 8866 §9).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The last word on direction (RFC 8866 §6.7); `None` when none of the four is there.
    pub fn direction(&self) -> Option<Direction> {
        self.0.iter().rev().find_map(|(name, _)| match name.as_str() {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        })
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_secret = |name: &str| ["crypto", "key-mgmt"].contains(&name);
        let shown = |(name, value): &(String, String)| match is_secret(name) {
            true => format!("{name}:***"),
            false => format!("{name}:{value}"),
        };
        f.debug_list().entries(self.0.iter().map(shown)).finish()
    }
}

/// Reads a description. The error says in words what is wrong with it.
pub fn parse(body: &[u8]) -> Result<SessionDescription, String> {
    if body.len() > limits::SDP_BYTES_MAX {
        return Err(format!("larger than {} bytes", limits::SDP_BYTES_MAX));
    }
    let session = Session::parse(tidy(body)?.as_bytes()).map_err(|fault| fault.to_string())?;
    if session.medias.len() > limits::SDP_MEDIA_MAX {
        return Err(format!("more than {} media sections", limits::SDP_MEDIA_MAX));
    }
    let media = session.medias.into_iter().map(read_section).collect::<Result<_, _>>()?;
    Ok(SessionDescription {
        connection: session.connection.map(read_connection).transpose()?,
        attributes: read_attributes(session.attributes),
        media,
    })
}

/// The lines that mean something, each with single blanks where blanks divide fields.
fn tidy(body: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(body);
    let mut tidy = String::with_capacity(text.len());
    let mut lines = 0;
    for line in text.split(['\n', '\r']) {
        let line = line.trim();
        let Some((key, value)) = line.split_once('=') else { continue };
        match key {
            "v" | "a" => {
                tidy.extend([key, "=", value.trim()]);
            }
            "b" => {
                // As attributes, whose place does not matter.
                let Some((name, bits)) = bandwidth(value) else { continue };
                tidy.extend(["a=", name, ":", bits]);
            }
            "c" | "m" => {
                tidy.extend([key, "="]);
                for (index, word) in value.split_whitespace().enumerate() {
                    tidy.extend([if index == 0 { "" } else { " " }, word]);
                }
            }
            _ => continue,
        }
        tidy.push('\n');
        lines += 1;
        if lines > limits::SDP_LINES_MAX {
            return Err(format!("more than {} lines", limits::SDP_LINES_MAX));
        }
    }
    Ok(tidy)
}

/// The bandwidth of RTCP (RFC 3556), in bits a second; any other is nothing to us.
fn bandwidth(value: &str) -> Option<(&'static str, &str)> {
    let (kind, bits) = value.trim().split_once(':')?;
    let name = match kind {
        "RS" => control::SENDERS,
        "RR" => control::RECEIVERS,
        _ => return None,
    };
    bits.bytes().all(|byte| byte.is_ascii_digit()).then_some((name, bits))
}

fn read_section(media: Media) -> Result<MediaSection, String> {
    let formats: Vec<String> = media.fmt.split_ascii_whitespace().map(str::to_owned).collect();
    let words = [&media.media, &media.proto].into_iter().chain(&formats);
    if formats.is_empty() || !words.into_iter().all(|word| word.split('/').all(is_token)) {
        return Err("an m= line holds something else than tokens".to_owned());
    }
    let connection = media.connections.into_iter().next().map(read_connection).transpose()?;
    Ok(MediaSection {
        media: media.media,
        port: media.port,
        proto: media.proto,
        formats,
        connection,
        attributes: read_attributes(media.attributes),
    })
}

/// The token of RFC 8866 §9.
fn is_token(text: &str) -> bool {
    let is_special = |byte| b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_special(byte))
}

fn read_connection(connection: Connection) -> Result<String, String> {
    if !connection.nettype.as_str().eq_ignore_ascii_case("IN") {
        return Err("a c= line is for another network than IN".to_owned());
    }
    let address = connection.connection_address;
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}

fn read_attributes(attributes: Vec<Attribute>) -> Attributes {
    let pair = |attribute: Attribute| {
        let value = attribute.value.unwrap_or_default();
        (attribute.attribute.trim().to_owned(), value.trim().to_owned())
    };
    Attributes(attributes.into_iter().map(pair).collect())
}

/// A section of a description that we write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalSection {
    pub media: String,
    pub port: u16,
    pub proto: String,
    pub formats: Vec<String>,
    /// `a=` lines in order: name and value.
    pub attributes: Vec<(&'static str, Option<String>)>,
    /// `a=crypto` lines, in order, after the others.
    pub crypto: Vec<Crypto>,
}

/// A description that we write, all but its version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalDescription {
    pub session_id: u64,
    /// The address of `o=` and `c=`: ours as the world sees it, and the only one in the text.
    pub address: IpAddr,
    pub sections: Vec<LocalSection>,
}

impl LocalDescription {
    /// The text with the given version in `o=`: CRLF line ends, user name `-`, `s=-`, `t=0 0`.
    pub fn print(&self, version: u64) -> String {
        let origin = Origin::with_ip_addr(self.session_id, version, self.address);
        let mut session = Session::new(origin, "-");
        session.connection = Some(Connection::from_ip_addr(self.address));
        session.times = vec![Time::new(0, 0)];
        session.medias = self.sections.iter().map(write_section).collect();
        let mut bytes = Vec::with_capacity(512);
        session.write(&mut bytes).expect("writing to memory does not fail");
        String::from_utf8(bytes).expect("every field is text")
    }
}

fn write_section(section: &LocalSection) -> Media {
    let attribute = |(name, value): &(&'static str, Option<String>)| Attribute {
        attribute: (*name).to_owned(),
        value: value.clone(),
    };
    let crypto =
        |crypto: &Crypto| Attribute { attribute: "crypto".to_owned(), value: Some(crypto.write()) };
    let attributes = section.attributes.iter().map(attribute);
    Media {
        media: section.media.clone(),
        port: section.port,
        num_ports: None,
        proto: section.proto.clone(),
        fmt: section.formats.join(" "),
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes: attributes.chain(section.crypto.iter().map(crypto)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_line_ends_unknown_and_broken_lines_do_not_matter() {
        let text = "v=0\no=- 99999999999999999999999999 x\ns=\u{e9}\r\nb=nonsense\r\n\r\n\
                    c=IN  IP4   192.0.2.1/127 \r\n\
                    garbage\r\nm=audio  4000   RTP/AVP  0  8 \r\na=sendonly \r\na= ptime:20\r\n";
        let session = parse(text.as_bytes()).expect("tolerated");
        assert_eq!(session.connection.as_deref(), Some("192.0.2.1"));
        let [audio] = session.media.as_slice() else { panic!("one section") };
        assert_eq!(
            (audio.port, audio.formats.as_slice()),
            (4000, &["0".to_owned(), "8".to_owned()][..])
        );
        assert_eq!(audio.attributes.direction(), Some(Direction::SendOnly));
        assert_eq!(audio.attributes.first("ptime"), Some("20"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_words() {
        let many = format!("v=0\r\n{}", "m=audio 1 RTP/AVP 0\r\n".repeat(33));
        let long = format!("v=0\r\n{}", "a=x\r\n".repeat(2000));
        for (text, words) in [
            ("s=-\r\n", "No version"),
            ("v=1\r\n", "Invalid version"),
            ("", "No version"),
            ("v=0\r\nm=audio 99999 RTP/AVP 0\r\n", "port"),
            ("v=0\r\nm=audio 4000 RTP/AVP\r\n", "fmt"),
            ("v=0\r\nm=au\"dio 4000 RTP/AVP 0\r\n", "tokens"),
            ("v=0\r\nm=audio 4000 RTP//AVP 0\r\n", "tokens"),
            ("v=0\r\nc=ATM NSAP x\r\n", "network"),
            (many.as_str(), "media sections"),
            (long.as_str(), "lines"),
        ] {
            let fault = parse(text.as_bytes()).expect_err(text);
            assert!(fault.contains(words), "{text:.60}: {fault}");
        }
    }
}
