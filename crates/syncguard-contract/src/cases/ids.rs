//! I: lock ids, which the caller makes.

use syncguard_core::{Backend, LockId, Result};

use crate::expect::{
    RECORD, assert_extended, assert_no_record, assert_not_extended, assert_not_released,
    assert_released, granted,
};
use crate::store::{LONG, Store, fresh_id, fresh_key, ttl};

cases![
    i1_every_character_of_the_alphabet,
    i1_letters_in_another_case_are_another_id,
    i2_the_id_is_the_callers,
    i2_a_grant_whose_reply_was_lost_is_undone_by_id,
    i2_undoing_what_was_never_granted_changes_nothing,
];

async fn i1_every_character_of_the_alphabet(store: Store) -> Result<()> {
    let random = fresh_id();
    let middle = &random.as_str()[..18];
    for (head, tail) in [("--", "__"), ("__", "--"), ("00", "zZ"), ("aA", "99")] {
        let id: LockId = format!("{head}{middle}{tail}").parse()?;
        let key = fresh_key();
        let lease = granted(store.one.acquire(&key, &id, ttl(LONG)).await?);
        assert_eq!(lease.id(), &id);
        let record = store.two.find(&id).await?.expect("expected a record by id, but got none");
        assert_eq!((record.id(), record.key()), (&id, &key));
        assert_extended(store.two.extend_by_id(&id, ttl(LONG)).await?);
        assert_released(store.two.release_by_id(&id).await?);
    }
    Ok(())
}

async fn i1_letters_in_another_case_are_another_id(store: Store) -> Result<()> {
    let random = fresh_id();
    let id: LockId = format!("a{}", &random.as_str()[1..]).parse()?;
    let other: LockId = format!("A{}", &random.as_str()[1..]).parse()?;
    let key = fresh_key();
    granted(store.one.acquire(&key, &id, ttl(LONG)).await?);
    assert_no_record(store.one.find(&other).await?);
    assert_not_extended(store.one.extend_by_id(&other, ttl(LONG)).await?);
    assert_not_released(store.one.release_by_id(&other).await?);
    assert_released(store.one.release_by_id(&id).await?);
    Ok(())
}

async fn i2_the_id_is_the_callers(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let lease = granted(store.one.acquire(&key, &id, ttl(LONG)).await?);
    let record = store.two.get(&key).await?.expect(RECORD);
    assert_eq!((lease.id(), record.id()), (&id, &id));
    Ok(())
}

async fn i2_a_grant_whose_reply_was_lost_is_undone_by_id(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let _lost = store.one.acquire(&key, &id, ttl(LONG)).await?;
    assert_released(store.two.release_by_id(&id).await?);
    store.assert_free(&key).await?;
    Ok(())
}

async fn i2_undoing_what_was_never_granted_changes_nothing(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    assert_not_released(store.one.release_by_id(&id).await?);
    granted(store.one.acquire(&key, &id, ttl(LONG)).await?);
    store.assert_held(&key).await?;
    assert_released(store.one.release_by_id(&id).await?);
    Ok(())
}
