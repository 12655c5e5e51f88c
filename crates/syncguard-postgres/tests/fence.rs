//! A fence goes into a query and comes out of a row as a `BIGINT`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use sqlx::encode::{Encode, IsNull};
use sqlx::postgres::{PgArgumentBuffer, PgRow, Postgres};
use sqlx::{FromRow, Type, TypeInfo};
use syncguard_postgres::{Fence, sqlx};

#[test]
fn a_fence_is_sent_as_the_bigint_of_its_number() {
    let fence = Fence::new(42).unwrap();
    let mut buffer = PgArgumentBuffer::default();
    let is_null = Encode::<Postgres>::encode_by_ref(&fence, &mut buffer).unwrap();
    assert!(matches!(is_null, IsNull::No));
    assert_eq!(**buffer, 42_i64.to_be_bytes());
    assert_eq!(<Fence as Type<Postgres>>::type_info().name(), "INT8");
}

#[test]
fn a_fence_can_be_bound_and_read() {
    fn reads<T: for<'r> FromRow<'r, PgRow>>() {}
    reads::<(i64, Fence, Option<Fence>)>();
    let fence = Fence::new(42).unwrap();
    let _ = sqlx::query::<Postgres>("SELECT $1, $2").bind(fence).bind(Some(fence));
}
