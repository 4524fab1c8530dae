//! What a scope is, what a granted one covers, and what a list of them allows.

use proptest::{collection::vec, prelude::*};
use tower_api_key::{Scope, ScopeError, Scopes};

#[test]
fn a_granted_scope_covers_what_its_text_says_and_no_more() {
    // granted, covered, not covered
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "notes:read",
            &["notes:read"],
            &[
                "notes",
                "notes:",
                "notes:readonly",
                "notes:rea",
                "Notes:read",
                "notes:READ",
            ],
        ),
        (
            "read",
            &["read"],
            &["readonly", "rea", "read:", "reader", "*", "READ"],
        ),
        (
            "notes:*",
            &["notes:read", "notes:draft:read", "notes::", "notes:r"],
            &[
                "notes",
                "notes:",
                "note:read",
                "notesx:read",
                "Notes:read",
                "notes:*",
                "notes:a*",
            ],
        ),
        ("a:b:*", &["a:b:c"], &["a:b", "a:b:", "a:c:b", "a:bc"]),
        (
            "*",
            &["a", "notes:read", ":", "a:"],
            &["*", "", "a:*", "a b"],
        ),
    ];
    for &(granted, covered, others) in cases {
        let scope = Scope::new(granted).unwrap();
        let scopes = Scopes::of([granted]).unwrap();
        for &required in covered {
            assert!(
                scope.covers(required) && scopes.allows(required),
                "{granted} {required}"
            );
        }
        for &required in others {
            assert!(
                !scope.covers(required) && !scopes.allows(required),
                "{granted} {required}"
            );
        }
    }
}

#[test]
fn what_is_not_one_scope_is_refused_when_it_is_granted_and_never_allowed() {
    type Refusal = fn(&ScopeError) -> bool;
    let longer = "a".repeat(Scope::MAX_LEN + 1);
    let empty: Refusal = |error| *error == ScopeError::Empty;
    let long: Refusal = |error| matches!(error, ScopeError::TooLong(257));
    let character: Refusal = |error| matches!(error, ScopeError::Character(_));
    let wildcard: Refusal = |error| matches!(error, ScopeError::Wildcard(_));
    let cases: &[(&[&str], Refusal)] = &[
        (&[""], empty),
        (&[&longer], long),
        (
            &[
                " ", "a b", " a", "a ", "a\t", "a\n", "a\r\nb", "\0", "\u{7f}",
            ],
            character,
        ),
        (
            &["a,b", ",", "a\"b", "a\\b", "é", "a\u{a0}b", "ａ"],
            character,
        ),
        (
            &[
                "**", "a*", "a*b", "*a", "*:a", "a:*:b", "a:**", ":*", "*:*", "a:b*",
            ],
            wildcard,
        ),
    ];
    for &(texts, refused) in cases {
        for &text in texts {
            let error = Scope::new(text).unwrap_err();
            assert!(refused(&error), "{text:?} {error:?}");
            assert_eq!(text.parse::<Scope>(), Err(error.clone()));
            assert_eq!(Scopes::of(["fine", text]), Err(error));
            for scopes in [Scopes::unrestricted(), Scopes::of(["*"]).unwrap()] {
                assert!(!scopes.allows(text), "{scopes:?} {text:?}");
            }
        }
    }
}

#[test]
fn a_scope_may_have_every_other_visible_character_and_256_of_them() {
    let all: String = ('\u{21}'..='\u{7e}')
        .filter(|char| !"\"\\,*".contains(*char))
        .collect();
    let longest = "a".repeat(Scope::MAX_LEN);
    let longest_pattern = format!("{}:*", "a".repeat(Scope::MAX_LEN - 2));
    for text in [&all, &longest, &longest_pattern] {
        let scope = Scope::new(text).unwrap();
        assert_eq!(scope.as_str(), text);
        assert_eq!(scope.to_string(), *text);
        assert_eq!(format!("{scope:?}"), format!("{text:?}"));
        assert_eq!(scope.is_pattern(), text.ends_with('*'));
    }
    assert!(Scopes::of([&longest]).unwrap().allows(&longest));
}

#[test]
fn no_scopes_allow_nothing_and_only_the_name_unrestricted_allows_everything() {
    let nobody: [&str; 0] = [];
    let none = [
        Scopes::none(),
        Scopes::default(),
        Scopes::of(nobody).unwrap(),
    ];
    for scopes in &none {
        assert!(!scopes.allows("a") && !scopes.allows("") && !scopes.is_unrestricted());
        assert_eq!(*scopes, Scopes::none());
    }
    let all = Scopes::unrestricted();
    assert!(all.allows("a") && all.is_unrestricted());
    assert!(!all.allows("") && !all.allows("*") && !all.allows("a:*"));
    assert_ne!(all, Scopes::none());

    let star = Scopes::of(["*"]).unwrap();
    assert!(star.allows("a") && !star.is_unrestricted());
    assert_ne!(star, all);
}

#[test]
fn a_list_keeps_its_order_and_counts_what_is_repeated_once() {
    let scopes = Scopes::of(["b", "a:*", "b", "a", "a:*", "ab"]).unwrap();
    assert_eq!(scopes.iter().collect::<Vec<_>>(), ["b", "a:*", "a", "ab"]);
    assert_eq!(scopes.to_string(), "b a:* a ab");
    assert_eq!(format!("{scopes:?}"), r#"["b", "a:*", "a", "ab"]"#);

    assert_eq!(Scopes::none().to_string(), "");
    assert_eq!(format!("{:?}", Scopes::none()), "[]");
    assert_eq!(Scopes::unrestricted().iter().count(), 0);
    let shown = Scopes::unrestricted().to_string();
    assert_eq!(shown, "\"unrestricted\"");
    assert_eq!(format!("{:?}", Scopes::unrestricted()), "Unrestricted");
}

/// The matcher once more, a character at a time.
fn covers(granted: &[char], required: &[char]) -> bool {
    match (granted, required) {
        ([], []) | (['*'], [_, ..]) => true,
        ([one, granted @ ..], [other, required @ ..]) => one == other && covers(granted, required),
        _ => false,
    }
}

fn is_one_plain_scope(text: &str) -> bool {
    let allowed = |char: char| ('!'..='~').contains(&char) && !"\"\\,*".contains(char);
    !text.is_empty() && text.len() <= 256 && text.chars().all(allowed)
}

fn is_one_scope(text: &str) -> bool {
    let body = match text.strip_suffix(":*") {
        Some(body) if text.len() <= 256 => body,
        _ => text,
    };
    text == "*" || is_one_plain_scope(body)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn the_matcher_agrees_with_another_one(
        granted in vec("\\*|[ab:]{1,4}(:\\*)?", 0..4),
        required in "[ab:*]{0,6}|[ab, ]{0,3}",
    ) {
        prop_assume!(granted.iter().all(|text| is_one_scope(text)));
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let plain = is_one_plain_scope(&required);
        let mut any = false;
        for text in &granted {
            let covered = plain && covers(&chars(text), &chars(&required));
            prop_assert_eq!(Scope::new(text).unwrap().covers(&required), covered);
            any |= covered;
        }
        prop_assert_eq!(Scopes::of(&granted).unwrap().allows(&required), any);
        prop_assert_eq!(Scopes::unrestricted().allows(&required), plain);
    }

    #[test]
    fn the_syntax_agrees_with_another_reading_of_it(text in "[ab:*]{0,5}|\\PC{0,4}|a{250,255}:?\\*?|.{0,4}") {
        prop_assert_eq!(Scope::new(&text).is_ok(), is_one_scope(&text), "{:?}", text);
        if let Ok(scope) = Scope::new(&text) {
            prop_assert_eq!(scope.is_pattern(), !is_one_plain_scope(&text));
        }
    }
}

#[test]
fn scopes_cover_what_allows_no_more_than_they_do() {
    let scopes = |list: &str| list.parse::<Scopes>().unwrap();
    for (held, covered, others) in [
        ("", "", "a"),
        ("a", "a", "b a:b a:* *"),
        ("a b", "a", "c"),
        ("a:*", "a:b a:* a:b:* a:b:c", "a a: b:* *"),
        ("*", "a a:* * a:b:*", ""),
    ] {
        assert!(scopes(held).covers(&scopes(covered)), "{held}: {covered}");
        for other in scopes(others).iter() {
            assert!(!scopes(held).covers(&scopes(other)), "{held}: {other}");
            let more = format!("{covered} {other}");
            assert!(!scopes(held).covers(&scopes(&more)), "{held}: {more}");
        }
        assert!(!scopes(held).covers(&Scopes::unrestricted()), "{held}");
        assert!(Scopes::unrestricted().covers(&scopes(held)), "{held}");
    }
    assert!(Scopes::unrestricted().covers(&Scopes::unrestricted()));
}

#[test]
fn scopes_are_equal_in_whatever_order_and_read_back_from_their_text() {
    let one = Scopes::of(["a", "b:*"]).unwrap();
    let other: Scopes = "b:*  a".parse().unwrap();
    assert_eq!(one, other);
    assert_eq!(one, one.to_string().parse().unwrap());
    let parsed = ["b:*", "a"].map(|scope| scope.parse::<Scope>().unwrap());
    assert_eq!(one, Scopes::of(parsed).unwrap());
    let fewer = Scopes::of(["a"]).unwrap();
    assert_ne!(one, fewer);
    assert_ne!(fewer, one);
    assert_ne!(Scopes::none(), Scopes::unrestricted());
    assert!(
        Scopes::unrestricted()
            .to_string()
            .parse::<Scopes>()
            .is_err()
    );
}

#[test]
fn a_key_holds_a_bounded_number_of_scopes() {
    let many = |count| Scopes::of((0..count).map(|at| format!("s:{at}")));
    assert_eq!(many(256).unwrap().iter().count(), 256);
    assert_eq!(many(257), Err(ScopeError::TooMany));
    assert_eq!(many(1_000_000), Err(ScopeError::TooMany));
    assert_eq!(Scopes::of(["a"; 1_000]).unwrap().iter().count(), 1);
}
