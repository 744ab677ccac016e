//! How times are written in records: wall time as RFC 3339 in UTC with milliseconds, durations as
//! whole milliseconds. The only door to the `time` package.

use crate::ground::WallTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 text of `wall`, in UTC, cut to milliseconds: `2026-11-21T11:02:03.450Z`. Times outside
/// the years 0 to 9999 give their Unix microseconds.
pub fn rfc3339(wall: WallTime) -> String {
    let cut = wall.unix_micros().div_euclid(1_000) * 1_000;
    match OffsetDateTime::from_unix_timestamp_nanos(i128::from(cut) * 1_000) {
        Ok(time) if (0..=9999).contains(&time.year()) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.millisecond()
        ),
        _ => wall.unix_micros().to_string(),
    }
}

/// Reads what [`rfc3339`] wrote; other offsets and precisions are fine too.
pub fn parse(text: &str) -> Option<WallTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000).ok().map(WallTime::from_unix_micros)
}

/// `#[serde(with = "stamp::wall")]` for a `WallTime`.
pub mod wall {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(wall: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(*wall))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }
}

/// `#[serde(with = "stamp::wall_option")]` for an `Option<WallTime>`.
pub mod wall_option {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(
        wall: &Option<WallTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match wall {
            Some(wall) => serializer.serialize_str(&rfc3339(*wall)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<WallTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }
}

/// `#[serde(with = "stamp::millis")]` for a `Duration`.
pub mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_times_read_back_to_the_millisecond() {
        let wall = WallTime::from_unix_micros(1_795_258_923_450_999);
        assert_eq!(rfc3339(wall), "2026-11-21T11:02:03.450Z");
        assert_eq!(parse(&rfc3339(wall)), Some(WallTime::from_unix_micros(1_795_258_923_450_000)));
        assert_eq!(rfc3339(WallTime::from_unix_micros(-1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(parse("yesterday"), None);
    }
}
