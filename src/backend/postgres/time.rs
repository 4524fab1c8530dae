//! Times as PostgreSQL keeps them.

use std::time::SystemTime;

use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{
        PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid,
    },
};

use super::super::sql::millis;

/// A `timestamptz`: microseconds since 2000. The ends of the range are `-infinity` and `infinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp(i64);

/// From 1970 to 2000, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;
const MICROS_PER_MILLI: i64 = 1_000;

impl Timestamp {
    /// Later than everything.
    pub(super) const INFINITY: Self = Self(i64::MAX);

    pub(super) fn new(time: SystemTime) -> Self {
        // What a key can name ends in 9999: nothing overflows.
        Self(millis(time) * MICROS_PER_MILLI - EPOCH)
    }

    /// Whole milliseconds since 1970, what is below them cut off. What no key can name, such as
    /// `infinity`, is what no key can name here, too.
    pub(super) fn unix_millis(self) -> i64 {
        match self {
            Self(i64::MIN | i64::MAX) => self.0,
            Self(micros) => micros.saturating_add(EPOCH).div_euclid(MICROS_PER_MILLI),
        }
    }
}

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Timestamp {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Decode::<Postgres>::decode(value).map(Self),
            PgValueFormat::Text => Err("a time as text, which was not asked for".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_keep_their_milliseconds_and_lose_what_is_below() {
        let time = UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let stored = Timestamp::new(time);
        assert_eq!(stored.unix_millis(), 1_800_000_000_123);
        assert_eq!(Timestamp(stored.0 + 999).unix_millis(), 1_800_000_000_123);
        assert_eq!(Timestamp::new(UNIX_EPOCH).0, -EPOCH);
        assert_eq!(Timestamp(-EPOCH - 1).unix_millis(), -1);
        assert_eq!(Timestamp(i64::MAX - 1).unix_millis(), i64::MAX / 1_000);
    }
}
