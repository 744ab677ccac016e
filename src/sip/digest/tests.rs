//! Digest answers against the examples of the RFCs, and challenges as registrars really send them.
//! The expected hashes were made with another implementation (Python's `hashlib`).

use super::*;
use crate::sip::msg::Message;
use crate::sip::testing::parse;

fn client() -> DigestClient {
    let password = Secret::new("secret");
    DigestClient::new(Credentials { username: "alice".into(), password })
}

/// An answer with these header lines.
fn response(code: u16, lines: &str) -> Response {
    let text = format!(
        "SIP/2.0 {code} No\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:alice@pbx.example>;tag=1\n\
         To: <sip:alice@pbx.example>;tag=2\nCall-ID: c\nCSeq: 1 REGISTER\n{lines}\n\
         Content-Length: 0\n\n"
    );
    match parse(&text) {
        Message::Response(response) => response,
        Message::Request(_) => panic!("a request: {text}"),
    }
}

/// A challenge of realm `r` with this nonce and these further parameters.
fn challenge(nonce: &str, more: &str) -> Response {
    response(401, &format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\"{more}"))
}

fn authorize(client: &mut DigestClient) -> Vec<(&'static str, String)> {
    client.authorize(&Method::Register, "sip:pbx.example", b"", &mut Entropy::from_number(1))
}

/// Which nonce the next request answers, and its count; empty without one.
fn next(client: &mut DigestClient) -> String {
    let headers = authorize(client);
    let shown = headers.iter().map(|(name, value)| {
        let part = |key: &str| {
            let after = value.split_once(&format!("{key}=")).map_or("", |(_, after)| after);
            after.split(',').next().unwrap_or_default().trim_matches('"').to_owned()
        };
        format!("{} {} {}", name.trim_end_matches("-Authorization"), part("nonce"), part("nc"))
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// The answer to `challenge` with this client nonce.
fn answer(
    (username, password): (&str, &str),
    challenge: Challenge,
    asked: Asked<'_>,
    cnonce: &str,
) -> String {
    let credentials = Credentials { username: username.into(), password: Secret::new(password) };
    let mut space = Space::default();
    space.take(challenge, 0);
    let current = space.current.as_mut().expect("it was taken");
    current.answer(&credentials, &asked, cnonce.to_owned())
}

#[test]
fn the_examples_of_the_rfcs_come_out() {
    let get = Method::Other("GET".into());
    // RFC 7616 §3.9.1 for MD5 and SHA-256; the third row is the same example with SHA-512-256.
    let rows = [
        (Hash::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
        (Hash::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        (Hash::Sha512Half, "430d05014cecc49cab6fbe03176d41a1da86cbfe24a16580e22aaad928d960d0"),
    ];
    for (hash, expected) in rows {
        let challenge = Challenge {
            realm: "http-auth@example.org".into(),
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v".into(),
            opaque: Some("FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS".into()),
            algorithm: Algorithm { hash, is_session: false },
            names_algorithm: true,
            protection: Protection::Auth,
            stale: false,
        };
        let asked = Asked { method: &get, uri: "/dir/index.html", body: b"" };
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let value = answer(("Mufasa", "Circle of Life"), challenge, asked, cnonce);
        let algorithm = Algorithm { hash, is_session: false }.name();
        assert_eq!(
            value,
            format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", uri=\"/dir/index.html\", \
                 response=\"{expected}\", algorithm={algorithm}, \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\", \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, nc=00000001"
            )
        );
    }
    // RFC 2617 §3.5.
    let challenge = Challenge {
        realm: "testrealm@host.com".into(),
        nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093".into(),
        opaque: Some("5ccc069c403ebaf9f0171e9517f40e41".into()),
        algorithm: Algorithm::default(),
        names_algorithm: false,
        protection: Protection::Auth,
        stale: false,
    };
    let asked = Asked { method: &get, uri: "/dir/index.html", body: b"" };
    let value = answer(("Mufasa", "Circle Of Life"), challenge, asked, "0a4f113b");
    assert!(value.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{value}");
}

#[test]
fn challenges_of_all_forms_are_answered() {
    let cases = [
        (
            // FRITZ!Box
            r#"WWW-Authenticate: Digest realm="fritz.box", nonce="8D9F7C0E8E2B7F55""#,
            r#"Digest username="alice", realm="fritz.box", nonce="8D9F7C0E8E2B7F55", uri="sip:pbx.example", response="b7e97f73dd4d780ea97098126daca017""#,
        ),
        (
            // Asterisk chan_sip
            r#"WWW-Authenticate: Digest algorithm=MD5, realm="asterisk", nonce="1cb15e8a""#,
            r#"Digest username="alice", realm="asterisk", nonce="1cb15e8a", uri="sip:pbx.example", response="8d3b50367ac9404aa60461cd0a0f3b91", algorithm=MD5"#,
        ),
        (
            // PJSIP
            r#"WWW-Authenticate: Digest realm="asterisk",nonce="1700/ab",opaque="5c",algorithm=MD5,qop="auth""#,
            r#"Digest username="alice", realm="asterisk", nonce="1700/ab", uri="sip:pbx.example", response="f145023d9d40fa029aee252d44a7e0c4", algorithm=MD5, opaque="5c", cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // Kamailio
            r#"WWW-Authenticate: Digest realm="pbx.example", nonce="ZfQ=", qop="auth""#,
            r#"Digest username="alice", realm="pbx.example", nonce="ZfQ=", uri="sip:pbx.example", response="e3e58555f55b7a9d7a99c12f2ff02166", cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // lists of qop, odd blanks and case
            r#"www-authenticate:  digest  Realm = "r" ,NONCE="n",  QOP="auth-int, AUTH" , Algorithm="md5""#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="d5b22f949b701c949f35baa80225e294", algorithm=MD5, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // auth-int alone
            r#"WWW-Authenticate: Digest realm="r", nonce="n", qop="auth-int""#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="7055d6af5d263d1df889deafd9c4aeb3", cnonce="0a4f113b", qop=auth-int, nc=00000001"#,
        ),
        (
            // an empty qop
            r#"WWW-Authenticate: Digest realm="r", nonce="n", qop="""#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="6b2d6bca103af5cc0e1d3784f7c18234""#,
        ),
        (
            // an unquoted qop and unknown parameters
            r#"WWW-Authenticate: Digest realm="r", domain="sip:a sip:b", nonce="n", qop=auth, charset=UTF-8, userhash=true, x="y,z""#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="d5b22f949b701c949f35baa80225e294", cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // SHA-256
            r#"WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256"#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="a5aae70fd07995923da7c26babd74f83fb876dfe8867c59eb5798c707f0ac0a6", algorithm=SHA-256, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // SHA-512-256
            r#"WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=SHA-512-256"#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="2deb98d8b00f33b89572ed21db2ed34cafda2036ee843e7b624adc128b25359d", algorithm=SHA-512-256, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // session keys
            r#"WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=MD5-sess"#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="61ed14221c05f4893cf52d663e52bdfd", algorithm=MD5-sess, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // session keys of SHA-256
            r#"WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256-SESS"#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="ace203e9f622d4c1f22887b38921cece9e1a4f705b73133a6e9ff3f25d9992cd", algorithm=SHA-256-sess, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // session keys without qop
            r#"WWW-Authenticate: Digest realm="r", nonce="n", algorithm=MD5-sess"#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="057ebcaf849444faecfeda88aa119635", algorithm=MD5-sess, cnonce="0a4f113b""#,
        ),
        (
            // the weaker one first, on two lines
            r#"WWW-Authenticate: Digest realm="r", nonce="m", qop="auth", algorithm=MD5
WWW-Authenticate: Digest realm="r", nonce="s", qop="auth", algorithm=SHA-256"#,
            r#"Digest username="alice", realm="r", nonce="s", uri="sip:pbx.example", response="e78bce4717e0a19bfa2c3b44ccc779b83ead80383709e6d1c7d1ce4f86478f56", algorithm=SHA-256, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // three on one line
            r#"WWW-Authenticate: Digest realm="r", nonce="m", qop="auth", Digest realm="r", nonce="t", algorithm=SHA-512-256, qop="auth", Digest realm="r", nonce="s", qop="auth", algorithm=SHA-256"#,
            r#"Digest username="alice", realm="r", nonce="t", uri="sip:pbx.example", response="821ada70392b29151f44f490501cb6775daedbfb83b0ae4f33d54799a48696ec", algorithm=SHA-512-256, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // an unknown algorithm beside a known one
            r#"WWW-Authenticate: Digest realm="r", nonce="m", qop="auth", algorithm=AKAv1-MD5
WWW-Authenticate: Digest realm="r", nonce="s", qop="auth", algorithm=MD5"#,
            r#"Digest username="alice", realm="r", nonce="s", uri="sip:pbx.example", response="e91ab2a33d13a1baa242c8b2be132459", algorithm=MD5, cnonce="0a4f113b", qop=auth, nc=00000001"#,
        ),
        (
            // other schemes beside it
            r#"WWW-Authenticate: Bearer authz_server="https://a.example", Negotiate YIIabc==, Digest realm="r", nonce="n"
WWW-Authenticate: Basic realm="other""#,
            r#"Digest username="alice", realm="r", nonce="n", uri="sip:pbx.example", response="6b2d6bca103af5cc0e1d3784f7c18234""#,
        ),
        (
            // escapes and commas in values
            r#"WWW-Authenticate: Digest realm="a \"b\", c\\", nonce="n\"1", opaque="""#,
            r#"Digest username="alice", realm="a \"b\", c\\", nonce="n\"1", uri="sip:pbx.example", response="385108e194cba51269bd312b3ee3b025", opaque="""#,
        ),
    ];
    for (lines, expected) in cases {
        let mut client = client();
        assert_eq!(client.challenged(&response(401, lines)), Ok(()), "{lines}");
        let current = client.origin.current.as_mut().expect("it was taken");
        let asked = Asked { method: &Method::Register, uri: "sip:pbx.example", body: b"" };
        let value = current.answer(&client.credentials, &asked, "0a4f113b".into());
        assert_eq!(value, expected, "{lines}");
    }
}

#[test]
fn challenges_that_cannot_be_answered_are_refused() {
    let many = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\n".repeat(9);
    let wordy = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"{}", ", a=b".repeat(40));
    let long = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{}\"", "n".repeat(1025));
    let cases = [
        ("Server: x", DigestFault::Malformed),
        ("WWW-Authenticate:", DigestFault::Malformed),
        ("WWW-Authenticate: realm=\"r\", nonce=\"n\"", DigestFault::Malformed),
        ("WWW-Authenticate: Digest", DigestFault::Malformed),
        ("WWW-Authenticate: Digest realm=\"r\"", DigestFault::Malformed),
        ("WWW-Authenticate: Digest nonce=\"n\"", DigestFault::Malformed),
        ("WWW-Authenticate: Digest realm=\"r, nonce=\"n\"", DigestFault::Malformed),
        ("WWW-Authenticate: Digest realm=\"r\", realm=\"s\", nonce=\"n\"", DigestFault::Malformed),
        ("WWW-Authenticate: Digest realm=\"r\" nonce=\"n\"", DigestFault::Malformed),
        ("WWW-Authenticate: Digest realm=\"r\", ?, nonce=\"n\"", DigestFault::Malformed),
        ("WWW-Authenticate: Bearer realm=\"r\", scope=\"a\"", DigestFault::Unsupported),
        ("WWW-Authenticate: Basic realm=\"r\"", DigestFault::Unsupported),
        (
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=SHA-1",
            DigestFault::Unsupported,
        ),
        (
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"token\"",
            DigestFault::Unsupported,
        ),
        (many.trim_end(), DigestFault::TooMany),
        (&wordy, DigestFault::TooMany),
        (&long, DigestFault::TooMany),
    ];
    for (lines, fault) in cases {
        let mut client = client();
        assert_eq!(client.challenged(&response(401, lines)), Err(fault), "{lines}");
        assert_eq!(authorize(&mut client), [], "{lines}");
    }
}

#[test]
fn a_nonce_is_used_on_and_counted() {
    let mut client = client();
    assert_eq!(next(&mut client), "");
    assert_eq!(client.challenged(&challenge("n1", ", qop=\"auth\"")), Ok(()));
    for count in 1..=17 {
        assert_eq!(next(&mut client), format!("Authorization n1 {count:08x}"));
    }
    // Each answer has a client nonce of its own.
    let mut entropy = Entropy::from_number(2);
    let mut values = (0..2)
        .map(|_| client.authorize(&Method::Register, "sip:pbx.example", b"", &mut entropy).pop());
    assert_ne!(values.next(), values.next());
}

#[test]
fn a_session_key_keeps_its_client_nonce_as_long_as_its_nonce() {
    let mut client = client();
    let cnonce = |client: &mut DigestClient, seed| {
        let mut entropy = Entropy::from_number(seed);
        let headers = client.authorize(&Method::Register, "sip:h", b"", &mut entropy);
        let value = headers.first().map(|(_, value)| value.clone()).unwrap_or_default();
        value.split_once("cnonce=").map(|(_, rest)| rest[..34].to_owned())
    };
    let more = ", qop=\"auth\", algorithm=SHA-256-sess";
    client.challenged(&challenge("n1", more)).expect("taken");
    let first = cnonce(&mut client, 1);
    assert_eq!(cnonce(&mut client, 2), first);
    client.challenged(&challenge("n2", more)).expect("a used nonce may be used up");
    assert_ne!(cnonce(&mut client, 3), first);
}

#[test]
fn a_refused_answer_to_a_fresh_nonce_means_a_wrong_password() {
    let mut client = client();
    client.challenged(&challenge("n1", "")).expect("the first challenge");
    assert_eq!(next(&mut client), "Authorization n1 ");
    assert_eq!(client.challenged(&challenge("n2", "")), Err(DigestFault::Refused));
    // The next try begins without an answer.
    assert_eq!(next(&mut client), "");
    assert_eq!(client.challenged(&challenge("n3", "")), Ok(()));
    assert_eq!(next(&mut client), "Authorization n3 ");
    assert_eq!(client.challenged(&challenge("n3", "")), Err(DigestFault::Refused));
}

#[test]
fn stale_nonces_are_renewed_but_not_for_ever() {
    let mut client = client();
    client.challenged(&challenge("n1", "")).expect("the first challenge");
    for nonce in ["n2", "n3"] {
        next(&mut client);
        assert_eq!(client.challenged(&challenge(nonce, ", stale=TRUE")), Ok(()), "{nonce}");
    }
    next(&mut client);
    let again = challenge("n4", ", stale=true");
    assert_eq!(client.challenged(&again), Err(DigestFault::TooMany));

    // A nonce for each request, as some registrars have it, goes on for ever.
    let mut client = self::client();
    client.challenged(&challenge("n0", "")).expect("the first challenge");
    next(&mut client);
    for round in 1..20 {
        next(&mut client);
        let stale = if round % 2 == 0 { ", stale=true" } else { "" };
        let challenge = challenge(&format!("n{round}"), stale);
        assert_eq!(client.challenged(&challenge), Ok(()), "{round}");
        assert_eq!(next(&mut client), format!("Authorization n{round} "));
    }
}

#[test]
fn the_same_nonce_again_counts_on_and_ends() {
    let mut client = client();
    client.challenged(&challenge("n1", ", qop=\"auth\"")).expect("the first challenge");
    assert_eq!(next(&mut client), "Authorization n1 00000001");
    assert_eq!(next(&mut client), "Authorization n1 00000002");
    assert_eq!(client.challenged(&challenge("n1", ", qop=\"auth\"")), Ok(()));
    assert_eq!(next(&mut client), "Authorization n1 00000003");
    let fault = client.challenged(&challenge("n1", ", qop=\"auth\""));
    assert_eq!(fault, Err(DigestFault::Refused));
}

#[test]
fn the_realm_and_the_strength_are_kept() {
    let mut client = client();
    let strong = ", algorithm=SHA-256, qop=\"auth\"";
    client.challenged(&challenge("n1", strong)).expect("the first challenge");
    next(&mut client);
    next(&mut client);
    let other = "WWW-Authenticate: Digest realm=\"bank\", nonce=\"n2\", algorithm=SHA-256";
    assert_eq!(client.challenged(&response(401, other)), Err(DigestFault::OtherRealm));
    assert_eq!(authorize(&mut client), []);
    assert_eq!(client.challenged(&challenge("n3", "")), Err(DigestFault::Downgrade));
    assert_eq!(authorize(&mut client), []);
    let both = format!("{other}\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n4\"{strong}");
    assert_eq!(client.challenged(&response(401, &both)), Ok(()));
    assert_eq!(next(&mut client), "Authorization n4 00000001");
    let stronger = challenge("n5", ", stale=true, algorithm=SHA-512-256");
    assert_eq!(client.challenged(&stronger), Ok(()));
    next(&mut client);
    assert_eq!(client.challenged(&challenge("n6", strong)), Err(DigestFault::Downgrade));
}

#[test]
fn registrar_and_proxy_are_answered_side_by_side() {
    let mut client = client();
    let proxy = "Proxy-Authenticate: Digest realm=\"edge\", nonce=\"p1\", qop=\"auth\"";
    client.challenged(&response(407, proxy)).expect("the proxy's challenge");
    assert_eq!(next(&mut client), "Proxy p1 00000001");
    client.challenged(&challenge("w1", "")).expect("the registrar's challenge");
    assert_eq!(next(&mut client), "Authorization w1 ; Proxy p1 00000002");
    // The registrar refuses what it was answered; the proxy's nonce stays good.
    assert_eq!(client.challenged(&challenge("w2", "")), Err(DigestFault::Refused));
    assert_eq!(next(&mut client), "Proxy p1 00000003");
    // The other's header under the wrong code is still the only one there is.
    let mut client = self::client();
    client.challenged(&response(401, proxy)).expect("the proxy's challenge");
    assert_eq!(next(&mut client), "Proxy p1 00000001");
    // A forking proxy joins both in one answer.
    let mut client = self::client();
    let both = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"w1\"\n{proxy}");
    client.challenged(&response(401, &both)).expect("both challenges");
    assert_eq!(next(&mut client), "Authorization w1 ; Proxy p1 00000001");
}

#[test]
fn the_next_nonce_is_taken() {
    let mut client = client();
    client.challenged(&challenge("n1", ", qop=\"auth\"")).expect("the first challenge");
    assert_eq!(next(&mut client), "Authorization n1 00000001");
    let info = "Authentication-Info: qop=auth, NextNonce=\"n2\", rspauth=\"0\"";
    client.accepted(&response(200, info));
    assert_eq!(next(&mut client), "Authorization n2 00000001");
    client.accepted(&response(200, "Authentication-Info: nextnonce=\"\""));
    assert_eq!(client.origin.current.as_ref().map(|current| current.nonce_count), Some(1));
}

#[test]
fn the_name_is_quoted_and_hashed_as_it_is() {
    let challenge = Challenge {
        realm: "pb\"x".into(),
        nonce: "n\"1".into(),
        opaque: None,
        algorithm: Algorithm::default(),
        names_algorithm: false,
        protection: Protection::Legacy,
        stale: false,
    };
    let asked = Asked { method: &Method::Register, uri: "sip:pbx.example", body: b"" };
    let value = answer(("al\"ice\\", "pw"), challenge, asked, "c");
    assert_eq!(
        value,
        r#"Digest username="al\"ice\\", realm="pb\"x", nonce="n\"1", uri="sip:pbx.example", response="e829fea940bb44bd5334e3d2f353fa4f""#
    );
}

#[test]
fn nothing_of_it_prints_the_password() {
    let mut client = client();
    client.challenged(&challenge("n1", "")).expect("the first challenge");
    assert!(!format!("{client:?}").contains("secret"));
}
