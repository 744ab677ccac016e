//! Header names (RFC 3261 §7.3.1, §20): any case, and the one-letter compact forms of the IANA
//! registry. Names that are not listed here are `Other` and are found by their text.

/// Makes the enum, its printed names and the look-up from one table. Rows are grouped by their
/// first letter so that a look-up compares with few names.
macro_rules! names {
    ($($letter:literal { $($variant:ident $text:literal),+ $(,)? })+) => {
        /// A header name that the product reads or writes; `Other` for all the rest.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Name { $($($variant,)+)+ Other }

        impl Name {
            /// How many names there are, `Other` included.
            pub(super) const COUNT: usize = Name::Other as usize + 1;

            /// The full name as printed; empty for `Other`.
            pub fn as_str(self) -> &'static str {
                match self { $($(Name::$variant => $text,)+)+ Name::Other => "" }
            }

            fn of_full(text: &str) -> Name {
                let rows: &[(&str, Name)] = match text.as_bytes().first().map(u8::to_ascii_lowercase) {
                    $(Some($letter) => &[$(($text, Name::$variant)),+],)+
                    _ => &[],
                };
                // Most senders write a name as the RFC does.
                let same = |known: &str| known == text || known.eq_ignore_ascii_case(text);
                rows.iter()
                    .find(|(known, _)| known.len() == text.len() && same(known))
                    .map_or(Name::Other, |(_, name)| *name)
            }
        }
    };
}

names! {
    b'a' { Accept "Accept", Allow "Allow", AllowEvents "Allow-Events", AlertInfo "Alert-Info",
           AcceptEncoding "Accept-Encoding", AcceptLanguage "Accept-Language",
           Authorization "Authorization", AuthenticationInfo "Authentication-Info" }
    b'c' { CallId "Call-ID", CSeq "CSeq", Contact "Contact", ContentLength "Content-Length",
           ContentType "Content-Type", ContentDisposition "Content-Disposition",
           ContentEncoding "Content-Encoding", CallInfo "Call-Info" }
    b'd' { Date "Date", Diversion "Diversion" }
    b'e' { Event "Event", Expires "Expires" }
    b'f' { From "From" }
    b'h' { HistoryInfo "History-Info" }
    b'i' { InfoPackage "Info-Package", Identity "Identity" }
    b'm' { MaxForwards "Max-Forwards", MinSe "Min-SE", MinExpires "Min-Expires" }
    b'p' { Path "Path", Privacy "Privacy", Priority "Priority",
           PAssertedIdentity "P-Asserted-Identity", PPreferredIdentity "P-Preferred-Identity",
           ProxyAuthenticate "Proxy-Authenticate", ProxyAuthorization "Proxy-Authorization",
           ProxyRequire "Proxy-Require" }
    b'r' { Route "Route", RecordRoute "Record-Route", Require "Require", Reason "Reason",
           RemotePartyId "Remote-Party-ID", Replaces "Replaces", ReferTo "Refer-To",
           ReferredBy "Referred-By", ReferSub "Refer-Sub", RetryAfter "Retry-After",
           RecvInfo "Recv-Info", RSeq "RSeq", RAck "RAck" }
    b's' { Supported "Supported", Server "Server", SessionExpires "Session-Expires",
           Subject "Subject", ServiceRoute "Service-Route",
           SubscriptionState "Subscription-State" }
    b't' { To "To", Timestamp "Timestamp" }
    b'u' { UserAgent "User-Agent", Unsupported "Unsupported", UserToUser "User-to-User" }
    b'v' { Via "Via" }
    b'w' { Warning "Warning", WwwAuthenticate "WWW-Authenticate" }
}

impl Name {
    /// The name of a header field, compact or full, in any case.
    pub fn parse(text: &str) -> Name {
        match text.as_bytes() {
            [letter] => Name::of_compact(letter.to_ascii_lowercase()),
            _ => Name::of_full(text),
        }
    }

    fn of_compact(letter: u8) -> Name {
        match letter {
            b'b' => Name::ReferredBy,
            b'c' => Name::ContentType,
            b'e' => Name::ContentEncoding,
            b'f' => Name::From,
            b'i' => Name::CallId,
            b'k' => Name::Supported,
            b'l' => Name::ContentLength,
            b'm' => Name::Contact,
            b'o' => Name::Event,
            b'r' => Name::ReferTo,
            b's' => Name::Subject,
            b't' => Name::To,
            b'u' => Name::AllowEvents,
            b'v' => Name::Via,
            b'x' => Name::SessionExpires,
            b'y' => Name::Identity,
            _ => Name::Other,
        }
    }

    /// True when two copies would be ambiguous and something is decided from the value. Fields that
    /// are only shown (Subject, User-Agent, Date …) may repeat: refusing a call for them helps nobody.
    pub(super) fn is_single(self) -> bool {
        matches!(
            self,
            Name::From
                | Name::To
                | Name::CallId
                | Name::CSeq
                | Name::MaxForwards
                | Name::ContentLength
                | Name::ContentType
                | Name::ContentDisposition
                | Name::Expires
                | Name::MinExpires
                | Name::MinSe
                | Name::SessionExpires
                | Name::Event
                | Name::SubscriptionState
                | Name::ReferTo
                | Name::ReferredBy
                | Name::ReferSub
                | Name::Replaces
                | Name::RSeq
                | Name::RAck
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_compact_and_odd_case_names_are_the_same() {
        let cases = [
            ("Via", Name::Via),
            ("v", Name::Via),
            ("vIA", Name::Via),
            ("L", Name::ContentLength),
            ("CALL-id", Name::CallId),
            ("p-asserted-identity", Name::PAssertedIdentity),
            ("www-authenticate", Name::WwwAuthenticate),
            ("C%6Fntact", Name::Other),
            ("X-Via", Name::Other),
            ("z", Name::Other),
            ("", Name::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(Name::parse(text), expected, "{text}");
        }
        assert_eq!(Name::parse(Name::ReferTo.as_str()), Name::ReferTo);
    }
}
