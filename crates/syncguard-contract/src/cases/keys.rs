//! K: which texts are keys, and which two keys are the same lock.

use syncguard_core::{Acquired, Backend, ErrorCode, Key, Result};

use crate::expect::{RECORD, assert_released, assert_rises, granted};
use crate::store::{LONG, Store, fresh_id, fresh_key, key, ttl};

cases![
    k1_keys_with_punctuation,
    k1_keys_with_control_characters,
    k1_keys_in_many_scripts,
    k1_keys_of_512_bytes,
    k2_two_spellings_are_one_lock,
    k2_similar_keys_are_different_locks,
    k2_long_keys_that_differ_at_the_end_are_different_locks,
    k3_keys_that_look_like_stored_names_change_no_other_lock,
    k4_debug_shows_no_raw_name,
];

async fn k1_keys_with_punctuation(store: Store) -> Result<()> {
    let keys = [
        "with/slashes//and/",
        "/",
        "..",
        "with:colons::",
        "with spaces ",
        "with-dashes_underscores.dots",
        "\"quotes\" 'single' `back`",
        "back\\slash \\n \\u0041",
        "percent%20 $dollar {braces} [brackets] (parentheses)",
        "semi;colon, --dashes /* comment */ DROP TABLE",
        "__reserved__",
        "glob*?[a-z]",
        "hash{tag}",
    ];
    whole_lives(&store, &keys).await
}

async fn k1_keys_with_control_characters(store: Store) -> Result<()> {
    let keys = [
        "line\nfeed",
        "carriage\r\nreturn",
        "tab\t",
        "escape\u{1b}[31m",
        "delete\u{7f}",
        "start\u{1}",
    ];
    whole_lives(&store, &keys).await
}

async fn k1_keys_in_many_scripts(store: Store) -> Result<()> {
    let keys = [
        "caf\u{e9} r\u{e9}serv\u{e9}",
        "\u{440}\u{435}\u{441}\u{443}\u{440}\u{441}",
        "\u{8cc7}\u{6e90}\u{30ea}\u{30bd}\u{30fc}\u{30b9}",
        "\u{202e}right to left \u{5d0}\u{5d1}",
        "\u{1f512}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "unassigned \u{e0fff} private \u{e000} last \u{10ffff}",
    ];
    whole_lives(&store, &keys).await
}

async fn k1_keys_of_512_bytes(store: Store) -> Result<()> {
    for filling in ["x", "/", "\u{1f512}", "\u{e9}"] {
        let random = fresh_id().as_str().to_owned() + "12";
        let left = Key::MAX_LEN - random.len();
        let longest = random + &filling.repeat(left / filling.len());
        assert_eq!(longest.len(), Key::MAX_LEN);
        whole_life(&store, &key(&longest)).await?;
    }
    Ok(())
}

/// Checks each text, with a random prefix so that it is unique.
async fn whole_lives(store: &Store, texts: &[&str]) -> Result<()> {
    for text in texts {
        whole_life(store, &key(&format!("{}{text}", fresh_id().as_str()))).await?;
    }
    Ok(())
}

/// Takes a key through every operation.
async fn whole_life(store: &Store, key: &Key) -> Result<()> {
    let shown = key.as_str();
    let first = store.take(key, LONG).await?;
    assert_eq!(first.key(), key, "expected a lease of the requested key");
    store.assert_held(key).await?;
    let by_key = store.two.get(key).await?.expect(RECORD);
    let by_id = store.two.find(first.id()).await?;
    assert_eq!(by_key.key(), key, "expected a record of the requested key");
    assert_eq!(by_id.as_ref(), Some(&by_key), "expected the same record of {shown:?} by id");
    let extended = store.two.extend(&first, ttl(LONG)).await?;
    assert!(extended.is_some(), "expected the lease of {shown:?} to be extended, but got None");
    assert!(
        store.two.release(&first).await?,
        "expected release of {shown:?} to return true, but it returned false"
    );
    assert_eq!(
        store.one.get(key).await?,
        None,
        "expected no record of {shown:?} after its release"
    );
    let second = store.take(key, LONG).await?;
    assert_rises(first.fence(), second.fence());
    assert_released(store.one.release_by_id(second.id()).await?);
    Ok(())
}

async fn k2_two_spellings_are_one_lock(store: Store) -> Result<()> {
    let random = fresh_key();
    let spelled = |text: &str| key(&format!("{}{text}", random.as_str()));
    // An accent, a Hangul syllable, the Angstrom sign, and marks in another order.
    for (one, two) in [
        ("caf\u{e9}", "cafe\u{301}"),
        ("\u{ac00}", "\u{1100}\u{1161}"),
        ("\u{212b}", "A\u{30a}"),
        ("q\u{323}\u{307}", "q\u{307}\u{323}"),
    ] {
        let lease = store.take(&spelled(one), LONG).await?;
        assert!(
            store.is_held(&spelled(two)).await?,
            "expected {two:?} to be the same lock, but it was granted"
        );
        let record = store.two.get(&spelled(two)).await?.expect(RECORD);
        assert_eq!(record.id(), lease.id());
        assert_released(store.two.release(&lease).await?);
        granted(store.two.acquire(&spelled(two), &fresh_id(), ttl(LONG)).await?);
    }
    Ok(())
}

async fn k2_similar_keys_are_different_locks(store: Store) -> Result<()> {
    let random = fresh_key();
    let endings = [
        "a", "A", "a ", " a", "a:", "a::", ":a", "a/", "/a", "a\n", "a\t", "ab", "a%", "\u{430}",
        // Equal in the compatibility forms of Unicode, but different in NFC.
        "\u{fb01}", "fi", "\u{b2}", "2", "\u{ff41}",
    ];
    for ending in endings {
        let key = key(&format!("{}{ending}", random.as_str()));
        let lease = store.take(&key, LONG).await?;
        let record = store.two.get(&key).await?.expect(RECORD);
        assert_eq!((record.key(), record.id()), (&key, lease.id()));
    }
    Ok(())
}

async fn k2_long_keys_that_differ_at_the_end_are_different_locks(store: Store) -> Result<()> {
    let longest = fresh_key().as_str().to_owned() + &"x".repeat(Key::MAX_LEN);
    for ending in ["a", "b", "aa", "\u{e9}"] {
        let head = &longest[..Key::MAX_LEN - ending.len()];
        store.take(&key(&format!("{head}{ending}")), LONG).await?;
    }
    Ok(())
}

/// K3: a key may equal a name under which a store keeps something else. It is refused, or it is a
/// lock like any other. What the store keeps under that name must not change.
async fn k3_keys_that_look_like_stored_names_change_no_other_lock(store: Store) -> Result<()> {
    let victim = fresh_key();
    let lease = store.take(&victim, LONG).await?;
    let held = store.one.get(&victim).await?;
    let (name, id) = (victim.as_str(), lease.id().as_str());
    for spelled in [
        format!("id:{id}"),
        format!("syncguard:id:{id}"),
        format!("fence:{name}"),
        format!("fence:syncguard:{name}"),
        format!("syncguard:{name}"),
        format!("syncguard:fence:syncguard:{name}"),
    ] {
        let spelled = key(&spelled);
        match store.two.acquire(&spelled, &fresh_id(), ttl(LONG)).await {
            Ok(Acquired::Granted(other)) => assert!(store.two.release(&other).await?),
            Ok(Acquired::Held { .. }) => panic!("expected a free key, but it is held"),
            Err(error) => assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}"),
        }
        assert_eq!(store.one.get(&victim).await?, held, "expected no change of the record by key");
        assert_eq!(
            store.one.find(lease.id()).await?,
            held,
            "expected no change of the record by id"
        );
    }
    assert!(
        store.one.release(&lease).await?,
        "expected release to return true, but the lock was lost"
    );
    let next = store.take(&victim, LONG).await?;
    assert_rises(lease.fence(), next.fence());
    Ok(())
}

async fn k4_debug_shows_no_raw_name(store: Store) -> Result<()> {
    let key = fresh_key();
    let id = fresh_id();
    let acquired = store.one.acquire(&key, &id, ttl(LONG)).await?;
    let record = store.one.get(&key).await?;
    let shown = format!("{acquired:?} {record:?} {:?}", store.one);
    for raw in [key.as_str(), id.as_str()] {
        assert!(!shown.contains(raw), "expected fingerprints only, but got a raw name: {shown}");
    }
    Ok(())
}
