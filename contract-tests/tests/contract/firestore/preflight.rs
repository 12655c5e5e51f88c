//! What a preflight finds out.

use std::time::Duration;

use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Backend, Finding, Level};

use super::clocks::system_minus;
use super::proxy::{COMMIT, QUERY, READ, Verdict};
use super::raw::Raw;
use super::{Emulator, PROJECT, cases};

cases![
    a_preflight_of_an_emulator_finds_no_error_and_writes_nothing,
    a_clock_that_is_off_is_an_error,
    what_firestore_denies_is_an_error,
    what_is_not_answered_is_unknown,
];

const CODES: [&str; 4] = ["database", "clock-offset", "permissions", "index"];

fn levels(findings: &[Finding]) -> Vec<Level> {
    let codes: Vec<_> = findings.iter().map(Finding::code).collect();
    assert_eq!(codes, CODES);
    findings.iter().map(Finding::level).collect()
}

async fn a_preflight_of_an_emulator_finds_no_error_and_writes_nothing(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let findings = backend.preflight().await;
    let [database, clock, permissions, index] = levels(&findings)[..] else { panic!() };
    assert_eq!(database, Level::Fine, "{findings:?}");
    // The first answer of an emulator can take too long to tell.
    assert!(matches!(clock, Level::Fine | Level::Unknown), "{findings:?}");
    // An emulator allows everything, so nothing is known of the real service.
    assert_eq!(permissions, Level::Unknown, "{findings:?}");
    assert!(matches!(index, Level::Fine | Level::Unknown), "{findings:?}");
    assert_eq!(proxy.seen().iter().filter(|method| *method == COMMIT).count(), 1);
    let raw: Raw = emulator.raw().await;
    for probe in ["deleted", "changed", "clock"] {
        assert_eq!(raw.get(&format!("locks/syncguard-probe-{probe}")).await, None);
    }
    assert!(raw.locks_of("preflight:").await.is_empty(), "the commit was applied in part");
}

async fn a_clock_that_is_off_is_an_error(emulator: Emulator) {
    for (off, level) in [(700, Level::Warning), (5_000, Level::Error)] {
        let builder = emulator.builder().clock(system_minus(Duration::from_millis(off)));
        let backend = builder.connect(PROJECT).await.unwrap();
        let findings = loop {
            let findings = backend.preflight().await;
            // On a busy machine, an answer can take too long to tell.
            if levels(&findings)[1] != Level::Unknown {
                break findings;
            }
        };
        assert_eq!(levels(&findings)[1], level, "{findings:?}");
        assert!(findings[1].fact().contains("behind"), "{findings:?}");
    }
}

async fn what_firestore_denies_is_an_error(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for (method, code, place) in [
        (READ, Code::NotFound, 0),
        (COMMIT, Code::PermissionDenied, 2),
        (QUERY, Code::FailedPrecondition, 3),
    ] {
        proxy.judge(move |seen| match seen {
            seen if seen == method => Verdict::Refuse(code),
            _ => Verdict::Pass,
        });
        let findings = backend.preflight().await;
        assert_eq!(levels(&findings)[place], Level::Error, "{method}: {findings:?}");
        assert!(!findings[place].fact().contains("quoted-key"));
    }
}

async fn what_is_not_answered_is_unknown(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    proxy.judge(|_| Verdict::Refuse(Code::Unavailable));
    let findings = backend.preflight().await;
    assert_eq!(levels(&findings), [Level::Unknown; 4], "{findings:?}");
}
