//! Which options are refused.

use std::time::Duration;

use super::*;

fn refused(builder: &FirestoreBackendBuilder) -> bool {
    refused_in("my-project", builder)
}

fn refused_in(project: &str, builder: &FirestoreBackendBuilder) -> bool {
    match builder.names(project) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            assert_eq!(error.operation(), Operation::Configure);
            true
        }
    }
}

#[test]
fn e3_configuration_is_checked() {
    let good = FirestoreBackend::builder();
    assert!(!refused(&good));
    assert!(!refused(&good.clone().lock_collection("app locks")));
    for bad in ["", "a/b", ".", "..", "__locks__", &"x".repeat(1_501)] {
        assert!(refused(&good.clone().lock_collection(bad)), "{bad}");
        assert!(refused(&good.clone().fence_collection(bad)), "{bad}");
        assert!(refused(&good.clone().leader_collection(bad)), "{bad}");
        assert!(refused(&good.clone().database(bad)), "{bad}");
        assert!(refused_in(bad, &good), "{bad}");
    }
    assert!(refused(&good.clone().lock_collection("fence_counters")));
    assert!(refused(&good.clone().leader_collection("fence_counters")));
    assert!(refused(&good.clone().leader_collection("locks")));
    assert!(!refused(&good.clone().lock_collection("leaders")));
    assert!(refused(&good.command_timeout(Duration::ZERO)));
}

#[test]
fn e3_the_emulators_address_is_host_and_port() {
    let builder = FirestoreBackend::builder();
    let address = |given: Option<&str>, environment: Option<OsString>| {
        let builder = given.map_or(builder.clone(), |given| builder.clone().emulator(given));
        builder.emulator_address(environment)
    };
    assert_eq!(address(None, None).unwrap(), None);
    assert_eq!(address(None, Some("".into())).unwrap(), None);
    for good in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
        assert_eq!(address(None, Some(good.into())).unwrap().unwrap(), good);
        assert_eq!(address(Some(good), Some("other:1".into())).unwrap().unwrap(), good);
    }
    let refused = |given, environment| {
        let error = address(given, environment).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(error.operation(), Operation::Configure);
    };
    for bad in ["http://localhost:8080", "localhost:8080/", "local host:8080", "localhost"] {
        refused(None, Some(bad.into()));
        refused(Some(bad), None);
    }
    refused(Some(""), None);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt as _;
        refused(None, Some(OsString::from_vec(b"localhost:80\xff".to_vec())));
    }
}

#[tokio::test]
async fn e3_configuration_is_checked_before_any_connection() {
    // Nobody listens there, which would be another error.
    let builder = FirestoreBackend::builder().emulator("127.0.0.1:1");
    let error = builder.clone().database("a/b").connect("p").await.unwrap_err();
    assert_eq!(
        (error.code(), error.operation()),
        (ErrorCode::InvalidArgument, Operation::Configure)
    );
    let error = builder.connect("p").await.unwrap_err();
    assert_eq!(
        (error.code(), error.operation()),
        (ErrorCode::ServiceUnavailable, Operation::Connect)
    );
}

#[tokio::test]
async fn e3_an_endpoint_that_is_no_url_is_refused() {
    for bad in ["", "firestore", "ftp://firestore", "https://", "https://a b"] {
        let builder = FirestoreBackend::builder().endpoint(bad);
        let error = builder.connect("p").await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{bad}: {error}");
    }
}
