//! Binds and reads a [`Fence`] as `BIGINT` through sqlx.

use sqlx_core::database::Database;
use sqlx_core::decode::Decode;
use sqlx_core::encode::{Encode, IsNull};
use sqlx_core::error::BoxDynError;
use sqlx_core::types::Type;

use crate::Fence;

impl<DB: Database> Type<DB> for Fence
where
    i64: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <i64 as Type<DB>>::type_info()
    }

    fn compatible(column: &DB::TypeInfo) -> bool {
        <i64 as Type<DB>>::compatible(column)
    }
}

impl<'q, DB: Database> Encode<'q, DB> for Fence
where
    i64: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        i64::try_from(self.get())?.encode(buffer)
    }
}

impl<'r, DB: Database> Decode<'r, DB> for Fence
where
    i64: Decode<'r, DB>,
{
    // Any number may be in the column, so this checks it and returns an error.
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        let number = u64::try_from(<i64 as Decode<'r, DB>>::decode(value)?)?;
        Ok(Self::new(number)?)
    }
}
