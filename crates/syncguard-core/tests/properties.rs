//! Properties of all keys: normalization, the byte limits, and names that do not collide.

use std::collections::HashMap;

use proptest::prelude::*;
use syncguard_core::{Key, KeySpace};
use unicode_normalization::{UnicodeNormalization, is_nfc};

proptest! {
    #[test]
    fn k1_a_key_is_nfc_and_1_to_512_bytes(text in "\\PC{0,300}|[a-z\u{301}\u{308}]{0,600}") {
        let normalized: String = text.nfc().collect();
        match Key::new(&text) {
            Ok(key) => {
                prop_assert_eq!(key.as_str(), &normalized);
                prop_assert!(is_nfc(key.as_str()));
                prop_assert!((1..=512).contains(&key.as_str().len()));
            }
            Err(_) => prop_assert!(normalized.is_empty() || normalized.len() > 512),
        }
    }

    #[test]
    fn k2_spellings_that_are_equal_after_nfc_are_one_key(text in "[a-zéüñ가각ÅΩ]{1,50}") {
        let decomposed: String = text.nfd().collect();
        prop_assert_eq!(Key::new(&decomposed).unwrap(), Key::new(&text).unwrap());
        prop_assert_eq!(
            Key::new(&decomposed).unwrap().fingerprint(),
            Key::new(&text).unwrap().fingerprint()
        );
    }

    #[test]
    fn k3_names_fit_and_never_collide_across_prefixes(
        prefixes in prop::collection::hash_set("[a-z]{1,20}", 2..6),
        texts in prop::collection::hash_set("[a-z/:]{1,120}|é{10,60}", 1..20),
    ) {
        let mut seen = HashMap::new();
        for prefix in &prefixes {
            let names = KeySpace::new(prefix, 100, 26).unwrap();
            for text in &texts {
                let key = Key::new(text).unwrap();
                let base = names.base_key(&key);
                for name in [names.fence_key(&base), base] {
                    prop_assert!(name.len() <= 74 && name.starts_with(names.prefix()));
                    let owner = (prefix.clone(), text.clone());
                    // A key such as `fence:a:b` would collide with a derived name, so backends
                    // refuse it. Random keys are never of this form in practice.
                    prop_assert_eq!(seen.insert(name, owner), None);
                }
            }
        }
    }
}
