//! Where peppers come from, which ones are refused, and that a restart finds the same one.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Barrier,
    thread,
};

use support::{folder::Folder, unknown_token};
use tower_api_key::{
    ApiKeyStore, ApiKeyToken, Brand, CachedResolver, ConfigError, MemoryBackend, Pepper, PepperId,
    Peppers,
};

/// What a pepper makes of one token: two peppers are the same where this is.
fn fingerprint(pepper: Pepper) -> String {
    let token: ApiKeyToken = unknown_token().parse().unwrap();
    Peppers::new(pepper).hash(&token).unwrap().to_hex()
}

#[test]
fn an_empty_or_short_pepper_is_refused_and_a_weak_one_only_by_that_name() {
    for len in 0..40 {
        let bytes = vec![7; len];
        let new = Pepper::new("v1", &bytes);
        let weak = Pepper::weak_for_import("v1", &bytes);
        assert_eq!(new.is_ok(), len >= 16, "{len}");
        assert_eq!(weak.is_ok(), len >= 1, "{len}");
        if let Err(error) = new {
            let ConfigError::PepperTooShort { id, len: told, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!((id.as_str(), told), ("v1", len));
        }
        if let (Ok(new), Ok(weak)) = (Pepper::new("v1", &bytes), weak) {
            assert_eq!(fingerprint(new), fingerprint(weak));
        }
    }
}

#[test]
fn a_pepper_id_has_one_to_fifteen_plain_characters() {
    for id in ["v", "2026-11", "A.b_c-9", "123456789012345"] {
        assert_eq!(PepperId::new(id).unwrap().to_string(), id);
        assert_eq!(Pepper::random(id).unwrap().id().as_str(), id);
    }
    for id in [
        "",
        "1234567890123456",
        "a b",
        "a\n",
        "é",
        "a/b",
        "a:b",
        "\0",
    ] {
        assert!(PepperId::new(id).is_err(), "{id:?}");
        let refused = |made: Result<Pepper, _>| matches!(made, Err(ConfigError::PepperId { .. }));
        assert!(refused(Pepper::new(id, [7; 32])), "{id:?}");
        assert!(refused(Pepper::weak_for_import(id, [7])), "{id:?}");
        assert!(refused(Pepper::random(id)), "{id:?}");
    }
}

#[test]
fn two_peppers_of_one_id_are_refused() {
    let pepper = |id, byte| Pepper::new(id, [byte; 32]).unwrap();
    let peppers = Peppers::new(pepper("v3", 3))
        .with_retired(pepper("v2", 2))
        .unwrap();
    for id in ["v2", "v3"] {
        let error = peppers.clone().with_retired(pepper(id, 9)).unwrap_err();
        assert!(matches!(error, ConfigError::DuplicatePepper(twice) if twice.as_str() == id));
    }
    assert!(peppers.with_retired(pepper("v1", 1)).is_ok());
    assert!(Peppers::ephemeral().with_retired(pepper("v1", 1)).is_ok());
}

#[test]
fn random_peppers_differ_and_clones_of_an_ephemeral_one_are_one() {
    let random = || fingerprint(Pepper::random("v1").unwrap());
    assert_ne!(random(), random());

    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    let hash = |peppers: &Peppers| peppers.hash(&token).unwrap().to_hex();
    let first = Peppers::ephemeral();
    let clone = first.clone();
    assert_eq!(hash(&first), hash(&clone));
    assert_ne!(hash(&first), hash(&Peppers::ephemeral()));
    let shown = format!("{first:?}");
    assert!(shown.contains("eph-"), "{shown}");

    // Also before either was used.
    let first = Peppers::ephemeral();
    let retired = Pepper::random("v1").unwrap();
    let clone = first.clone().with_retired(retired).unwrap();
    assert_eq!(hash(&first), hash(&clone));
}

#[test]
fn a_bad_id_leaves_no_pepper_file_behind() {
    let folder = Folder::new("bad_id");
    let path = folder.0.join("pepper");
    assert!(Pepper::create_file("not an id", &path).is_err());
    assert!(!path.exists());
}

#[tokio::test]
async fn nothing_is_built_without_peppers() {
    let store = ApiKeyStore::builder(MemoryBackend::new()).build().await;
    assert!(matches!(store, Err(ConfigError::MissingPeppers)));
    let resolver = CachedResolver::builder(MemoryBackend::new()).build().await;
    assert!(matches!(resolver, Err(ConfigError::MissingPeppers)));
}

const IN_ENV: &str = "not decoded: 00ff=";
const ENV_SET: &str = "TOWER_API_KEY_TEST_PEPPER";
const ENV_SHORT: &str = "TOWER_API_KEY_TEST_PEPPER_SHORT";
const ENV_EMPTY: &str = "TOWER_API_KEY_TEST_PEPPER_EMPTY";

/// What another instance, which gets the same pepper another way, may not have.
const PADDED: [(&str, &str); 9] = [
    ("0123456789abcdef\n", "a line break"),
    ("\r\n0123456789abcdef", "a line break"),
    ("0123456789abcdef\r", "a line break"),
    (" 0123456789abcdef", "white space"),
    ("0123456789abcdef\t", "white space"),
    ("                    ", "white space"),
    ("\"0123456789abcdef\"", "a quotation mark"),
    ("'0123456789abcdef'", "a quotation mark"),
    ("`0123456789abcdef", "a quotation mark"),
];

/// A process can't safely change its own environment, so this test runs itself once more in one
/// that has the variables.
#[test]
fn a_pepper_from_the_environment_is_its_raw_bytes() {
    let unset = Pepper::from_env("v1", "TOWER_API_KEY_TEST_PEPPER_UNSET").unwrap_err();
    assert!(
        unset
            .to_string()
            .contains("TOWER_API_KEY_TEST_PEPPER_UNSET")
    );
    assert!(matches!(unset, ConfigError::PepperNotSet(_)));

    if env::var_os(ENV_SET).is_some() {
        let found = Pepper::from_env("v1", ENV_SET).unwrap();
        assert_eq!(
            fingerprint(found),
            fingerprint(Pepper::new("v1", IN_ENV).unwrap())
        );
        for (variable, len) in [(ENV_SHORT, 15), (ENV_EMPTY, 0)] {
            let error = Pepper::from_env("v1", variable).unwrap_err();
            let ConfigError::PepperTooShort { len: told, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(told, len);
        }
        for (at, (_, reason)) in PADDED.into_iter().enumerate() {
            let variable = format!("{ENV_SET}_{at}");
            let error = Pepper::from_env("v1", &variable).unwrap_err();
            assert!(matches!(error, ConfigError::PepperPadded { .. }));
            let text = error.to_string();
            assert!(text.contains(&variable) && text.contains(reason), "{text}");
            assert!(!text.contains("0123456789"), "{text}");
        }
        return;
    }
    let padded = PADDED.into_iter().enumerate();
    let again = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_pepper_from_the_environment_is_its_raw_bytes"])
        .env(ENV_SET, IN_ENV)
        .env(ENV_SHORT, "123456789012345")
        .env(ENV_EMPTY, "")
        .envs(padded.map(|(at, (value, _))| (format!("{ENV_SET}_{at}"), value)))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(
        again.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

#[test]
fn a_pepper_file_is_created_for_its_owner_alone_and_found_again() {
    let folder = Folder::new("created");
    let path = folder.join("pepper");
    let first = fingerprint(Pepper::create_file("v1", &path).unwrap());

    let text = fs::read_to_string(&path).unwrap();
    let digits = text.trim_end();
    assert_eq!(digits.len(), 64);
    let is_digit = |byte| b"0123456789abcdef".contains(&byte);
    assert!(digits.bytes().all(is_digit));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(folder.names(), ["pepper"]);

    assert_eq!(fingerprint(Pepper::from_file("v1", &path).unwrap()), first);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let elsewhere = Pepper::create_file("v1", folder.join("another")).unwrap();
    assert_ne!(fingerprint(elsewhere), first);
}

#[test]
fn g13_a_lost_pepper_file_is_an_error_and_is_not_created_anew() {
    let folder = Folder::new("lost");
    let error = Pepper::from_file("v1", folder.join("pepper")).unwrap_err();
    assert!(matches!(error, ConfigError::PepperFile { .. }), "{error:?}");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn g13_a_pepper_file_that_exists_is_never_replaced() {
    let folder = Folder::new("kept");
    let path = folder.join("pepper");
    for content in ["00112233445566778899aabbccddeeff", "", "not hex"] {
        fs::write(&path, content).unwrap();
        let error = Pepper::create_file("v1", &path).unwrap_err();
        let ConfigError::PepperFile { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(folder.names(), ["pepper"]);
    }
}

#[test]
fn a_pepper_file_is_hex_with_white_space_around_it_or_none() {
    let folder = Folder::new("hex");
    let bytes: Vec<u8> = (0..16).map(|at| at * 17).collect();
    let expected = fingerprint(Pepper::new("v1", bytes).unwrap());
    let digits = "00112233445566778899aabbccddeeff";
    for text in [
        digits.to_owned(),
        digits.to_uppercase(),
        format!("{digits}\r\n \t\n"),
        format!(" \n{digits}"),
    ] {
        fs::write(folder.join("pepper"), &text).unwrap();
        let found = Pepper::from_file("v1", folder.join("pepper")).unwrap();
        assert_eq!(fingerprint(found), expected, "{text:?}");
    }
}

#[test]
fn of_processes_that_create_one_pepper_file_one_does() {
    const STARTS: usize = 16;
    for round in 0..8 {
        let folder = Folder::new(&format!("race{round}"));
        let gate = Barrier::new(STARTS);
        let created: Vec<String> = thread::scope(|scope| {
            let start = || {
                gate.wait();
                let created = Pepper::create_file("v1", folder.join("pepper"));
                created.ok().map(fingerprint)
            };
            let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(start)).collect();
            let ended = starts.into_iter().map(|start| start.join().unwrap());
            ended.flatten().collect()
        });
        let found = fingerprint(Pepper::from_file("v1", folder.join("pepper")).unwrap());
        assert_eq!(created, [found]);
        assert_eq!(folder.names(), ["pepper"]);
    }
}

#[test]
fn a_pepper_file_that_holds_no_pepper_is_an_error_and_stays_as_it_is() {
    let folder = Folder::new("garbage");
    let contents: [&[u8]; 7] = [
        b"",
        b"\n",
        b"not a pepper, not even hex, but long enough",
        b"00112233445566778899aabbccddeeff0",
        b"00112233445566778899aabbccddee",
        b"00112233445566778899aabbccddeeff\nffeeddccbbaa99887766554433221100",
        b"\xff\xfe\0\0",
    ];
    for content in contents {
        fs::write(folder.join("pepper"), content).unwrap();
        let error = Pepper::from_file("v1", folder.join("pepper")).unwrap_err();
        let empty_or_short = content.trim_ascii_end().is_empty() || content.len() == 30;
        match &error {
            ConfigError::PepperTooShort { .. } => assert!(empty_or_short, "{content:?}"),
            ConfigError::PepperFile { path, .. } => {
                assert!(!empty_or_short, "{content:?}");
                assert_eq!(Path::new(path), folder.join("pepper"));
                assert!(error.source().is_some());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(folder.join("pepper")).unwrap(), content);
    }
}

#[test]
fn a_pepper_file_that_cannot_be_read_or_created_is_an_error() {
    let folder = Folder::new("unreadable");
    fs::write(folder.join("plain"), "").unwrap();
    let paths = [
        folder.0.clone(),
        folder.join("missing").join("pepper"),
        folder.join("plain").join("pepper"),
        PathBuf::new(),
    ];
    for path in paths {
        for tried in [
            Pepper::from_file("v1", &path),
            Pepper::create_file("v1", &path),
        ] {
            let error = tried.unwrap_err();
            assert!(
                matches!(error, ConfigError::PepperFile { .. }),
                "{path:?} {error:?}"
            );
            assert!(error.source().is_some());
        }
    }
    assert_eq!(folder.names(), ["plain"]);
}
