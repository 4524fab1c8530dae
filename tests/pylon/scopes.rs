//! What scopes mean is what the caller has said.

use tower_api_key::{
    ApiKey, ImportReport, KeySource, MemoryBackend, MissingScopes, OldPatterns, OldScopes,
    OldWildcard, RefusedReason, ScopeError, Scopes,
};

use super::{
    import,
    old::{Old, Row, id, text},
    strict,
};

/// One key with the scopes that this is in SQL: as what it is imported, or why not.
async fn read(scopes: OldScopes, stored: &str) -> Result<Scopes, RefusedReason> {
    let old = Old::sqlite().await;
    let row = Row {
        scopes: stored.to_owned(),
        ..Row::new(1)
    };
    old.put(&row).await;
    let backend = MemoryBackend::new();
    let report = old.import(&import(scopes), &backend).await.unwrap();
    let ImportReport {
        imported,
        mut refused,
        ..
    } = report;
    let id: tower_api_key::KeyId = id(1).parse().unwrap();
    let found: Vec<ApiKey> = backend.get_many(&[id.lookup_key()]).await.unwrap();
    assert_eq!(imported, u64::try_from(found.len()).unwrap());
    match (found.into_iter().next(), refused.pop()) {
        (Some(key), None) => Ok(key.scopes),
        (None, Some(refused)) => Err(refused.reason),
        both => panic!("{both:?}"),
    }
}

#[tokio::test]
async fn missing_scopes_mean_what_the_caller_says() {
    let some = Scopes::of(["notes:read"]).unwrap();
    let meanings = [
        (MissingScopes::Nothing, Ok(Scopes::none())),
        (MissingScopes::Unrestricted, Ok(Scopes::unrestricted())),
        (MissingScopes::These(some.clone()), Ok(some)),
        (MissingScopes::Refuse, Err(RefusedReason::MissingScopes)),
    ];
    for (missing, expected) in meanings {
        for stored in ["NULL", "''"] {
            let scopes = OldScopes {
                missing: missing.clone(),
                ..strict()
            };
            assert_eq!(read(scopes, stored).await, expected, "{missing:?} {stored}");
        }
    }
}

#[tokio::test]
async fn the_scope_star_means_what_the_caller_says() {
    let meanings = [
        (OldWildcard::Unrestricted, "*", Ok(Scopes::unrestricted())),
        (OldWildcard::Unrestricted, "a,*", Ok(Scopes::unrestricted())),
        (OldWildcard::AllScopes, "*", Scopes::of(["*"])),
        (OldWildcard::AllScopes, "a,*", Scopes::of(["a", "*"])),
    ];
    for (wildcard, stored, expected) in meanings {
        let scopes = OldScopes {
            wildcard,
            ..strict()
        };
        let read = read(scopes, &text(stored)).await;
        assert_eq!(read, Ok(expected.unwrap()), "{wildcard:?} {stored}");
    }
    for stored in ["*", "a,*", "*,a"] {
        let refused = Err(RefusedReason::Pattern("*".to_owned()));
        // That other patterns are ours says nothing of this one.
        let scopes = OldScopes {
            patterns: OldPatterns::Ours,
            ..strict()
        };
        assert_eq!(read(scopes, &text(stored)).await, refused, "{stored}");
    }
}

#[tokio::test]
async fn patterns_mean_what_the_caller_says() {
    let ours = OldScopes {
        patterns: OldPatterns::Ours,
        ..strict()
    };
    let expected = Scopes::of(["notes:*", "tags:read"]).unwrap();
    let stored = text("notes:*,tags:read");
    assert_eq!(read(ours, &stored).await, Ok(expected));

    let refused = Err(RefusedReason::Pattern("notes:*".to_owned()));
    for wildcard in [OldWildcard::Unrestricted, OldWildcard::AllScopes] {
        let scopes = OldScopes {
            wildcard,
            ..strict()
        };
        assert_eq!(read(scopes.clone(), &stored).await, refused);
        // A key that may do everything doesn't hide what else it has.
        assert_eq!(read(scopes, &text("*,notes:*")).await, refused);
    }
}

#[tokio::test]
async fn scopes_that_are_not_ours_are_refused_whatever_the_caller_says() {
    let lenient = OldScopes {
        missing: MissingScopes::Unrestricted,
        wildcard: OldWildcard::Unrestricted,
        patterns: OldPatterns::Ours,
    };
    let character = |scope: &str| ScopeError::Character(scope.to_owned());
    let wildcard = |scope: &str| ScopeError::Wildcard(scope.to_owned());
    let long = "a".repeat(257);
    let many: Vec<_> = (0..257).map(|number| format!("s{number}")).collect();
    for (stored, expected) in [
        (",", ScopeError::Empty),
        ("*,", ScopeError::Empty),
        (" ", ScopeError::Empty),
        ("read, ,write", ScopeError::Empty),
        ("read write", character("read write")),
        ("\"read\"", character("\"read\"")),
        ("[\"read\"]", character("[\"read\"]")),
        ("lösen", character("lösen")),
        ("notes*", wildcard("notes*")),
        ("*:read", wildcard("*:read")),
        ("**", wildcard("**")),
        (":*", wildcard(":*")),
        (&long, ScopeError::TooLong(257)),
        (&many.join(","), ScopeError::TooMany),
    ] {
        let refused = Err(RefusedReason::Scope(expected));
        assert_eq!(read(lenient.clone(), &text(stored)).await, refused);
    }
}

#[tokio::test]
async fn blanks_around_the_commas_of_scopes_are_no_part_of_them() {
    for stored in ["read, write", " read ,write ", "read,\twrite\n"] {
        let expected = Scopes::of(["read", "write"]).unwrap();
        assert_eq!(
            read(strict(), &text(stored)).await,
            Ok(expected),
            "{stored:?}"
        );
    }
    assert_eq!(
        read(strict(), &text("*, read")).await,
        Err(RefusedReason::Pattern("*".to_owned()))
    );
}
