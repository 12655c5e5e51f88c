//! The cheapest operations on Redis that could pass for a lock: no fence, no server time, no
//! look-up by id, no waiting.

use fred::clients::Client;
use fred::interfaces::{KeysInterface, LuaInterface};
use fred::types::{Expiration, SetOptions};
use syncguard_bench::Outcome;
use syncguard_core::LockId;

use crate::contestant::Contestant;

pub(super) const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

pub(super) async fn set_and_delete(client: &Client) -> Outcome<Contestant> {
    let sha: String = client.script_load(COMPARE_AND_DELETE).await?;
    let client = client.clone();
    Ok(Contestant::new("SET NX PX, compare-and-delete", move |key| {
        let (client, key, sha) = (client.clone(), format!("floor:{key}"), sha.clone());
        async move {
            let id = LockId::random()?;
            let (expire, options) = (Some(Expiration::PX(30_000)), Some(SetOptions::NX));
            let set: Option<String> =
                client.set(key.as_str(), id.as_str(), expire, options, false).await?;
            if set.is_none() {
                return Err("the key is held".into());
            }
            Ok(async move {
                let _: i64 = client.evalsha(sha, key, id.as_str()).await?;
                Ok(())
            })
        }
    }))
}
