//! Who may know whom: the direction of the modules, and where each dependency may be used.
#![allow(clippy::unwrap_used, reason = "a source that can't be read has failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Each module may use its own level and those listed before it.
const LEVELS: &[&[&str]] = &[
    &[
        "sync",
        "token",
        "scope",
        "clock",
        "background",
        "error",
        "ask",
        "stream",
    ],
    &["key", "context", "verify"],
    // An event is told to a log, too.
    &["trace", "events"],
    &["backend"],
    &["conformance", "import"],
    &["cache"],
    &["resolver"],
    &["store", "handoff"],
    &["middleware"],
    &["guard"],
];

/// A dependency, and the files (or folders of files) that may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("http", &["middleware", "guard"]),
    ("tower_layer", &["middleware", "guard"]),
    ("tower_service", &["middleware", "guard"]),
    ("axum", &["guard"]),
    ("dashmap", &["sync.rs"]),
    ("DashMap", &["sync.rs", "backend/memory.rs"]),
    ("futures_core", &["stream.rs", "events/stream.rs"]),
    ("foldhash", &["cache/table.rs"]),
    (
        "tokio",
        &[
            "sync.rs",
            "cache/watchers/tests.rs",
            "resolver/rewrap/tests.rs",
            "backend/sqlite/tests",
            "backend/postgres/tests",
        ],
    ),
    ("serde", &["key/metadata.rs"]),
    ("serde_json", &["key/metadata.rs"]),
    ("rustix", &["clock.rs"]),
    ("hmac", &["token"]),
    ("sha2", &["token"]),
    ("subtle", &["token", "handoff"]),
    ("rand", &["token"]),
    ("tracing", &["trace.rs"]),
    (
        "sqlx",
        &[
            "import/pylon.rs",
            "backend/sql",
            "backend/sqlite",
            "backend/postgres",
        ],
    ),
];

#[test]
fn modules_depend_downwards_only() {
    for (file, code) in sources() {
        let module = module_of(&file);
        // The crate's root, and a test that looks at all of it.
        if ["lib", "explore"].contains(&module) {
            continue;
        }
        let own = level(module).unwrap_or_else(|| panic!("{file} is at no level"));
        for used in crate_paths(&code) {
            let other = level(&used)
                .unwrap_or_else(|| panic!("{file} names `crate::{used}`, which is no module"));
            assert!(
                other <= own,
                "{file} uses `crate::{used}`, which is listed after it"
            );
        }
    }
}

#[test]
fn dependencies_are_used_where_they_belong() {
    for (file, code) in sources() {
        for (dependency, places) in CONFINED {
            let allowed = places
                .iter()
                .any(|place| file == *place || file.starts_with(&format!("{place}/")));
            assert!(
                allowed || !names(&code, dependency),
                "{file} names `{dependency}`, which belongs into {places:?}"
            );
        }
    }
}

/// The files that see a secret and compare it. Of public things, a length and the name of a pepper, they may compare
/// these alone by an equals sign.
///
/// A claim token is compared nowhere: its record is looked up by its SHA-256, a `ClaimHash`, which may have an
/// equals sign, since nobody who doesn't have the 128 random bits can come near it.
#[test]
fn secrets_are_compared_by_subtle_alone() {
    const FILES: &[(&str, &[&str])] = &[
        (
            "token/hash.rs",
            &["text.len() != 64", "text.len() != 128", "self.pepper.eq("],
        ),
        ("handoff/tokens.rs", &[]),
    ];
    const COMPARISONS: &[&str] = &["==", "!=", ".eq(", ".ne(", "cmp(", ".starts_with("];
    let sources = sources();
    for (file, public) in FILES {
        let (_, code) = sources.iter().find(|(name, _)| name == file).unwrap();
        assert!(code.contains(".ct_eq("), "{file} compares no secret");
        let rest = public.iter().fold(code.clone(), |code, public| {
            assert!(code.contains(public), "{file} has no `{public}` any more");
            code.replace(public, "")
        });
        for comparison in COMPARISONS {
            assert!(!rest.contains(comparison), "{file} has `{comparison}`");
        }
    }
    // Nor is what a stranger presents looked up, which stops at the first byte that differs.
    let (_, tickets) = sources
        .iter()
        .find(|(name, _)| name == "handoff/tokens.rs")
        .unwrap();
    let count = |text| tickets.matches(text).count();
    assert_eq!(count("presented.0"), count(".ct_eq(&presented.0)"));
}

#[test]
fn the_crate_without_features_has_no_axum_no_serde_and_no_sql() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--no-default-features", "--edges", "normal,build"])
        .args([
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--offline",
            "--locked",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(
        tree.contains("hmac v"),
        "the tree is that of the crate:\n{tree}"
    );
    for unwanted in [
        "axum",
        "serde",
        "sqlx",
        "rusqlite",
        "redis",
        "tracing v",
        "hyper v",
    ] {
        let found = tree.lines().find(|line| line.starts_with(unwanted));
        assert_eq!(found, None);
    }
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    collect(&root.join("tests"), &mut files);
    let code: Vec<_> = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    for document in ["README.md", "SECURITY.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let is_test = |word: &&str| {
            let plain =
                |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
            word.chars().all(plain) && word.matches('_').count() > 3
        };
        let tests: Vec<_> = text.split('`').filter(is_test).collect();
        assert!(tests.len() > 5, "{document} names {tests:?}");
        for test in tests {
            let definition = format!("fn {test}(");
            assert!(
                code.iter().any(|code| code.contains(&definition)),
                "{document} names the test {test}"
            );
        }
    }
}

/// What has fields and is made here alone can come to have more of them.
#[test]
fn variants_with_fields_of_public_enums_can_get_another_field() {
    let mut found = 0;
    for (file, code) in sources() {
        let mut enum_name = None;
        let mut before = "";
        for line in code.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(name) = line.strip_prefix("pub enum ") {
                enum_name = Some(identifier(name));
            } else if line == "}" {
                enum_name = None;
            }
            let variant = line
                .strip_prefix("    ")
                .and_then(|it| it.strip_suffix(" {"));
            let variant = variant.filter(|it| it.starts_with(|char: char| char.is_uppercase()));
            if let (Some(name), Some(variant)) = (&enum_name, variant) {
                found += 1;
                let may_grow = before.trim() == "#[non_exhaustive]";
                assert!(may_grow, "{file}: `{name}::{variant}`");
            }
            before = line;
        }
    }
    assert!(found > 20, "only {found} were found");
}

#[test]
fn every_name_that_the_log_has_is_listed_in_the_documentation() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: &str| fs::read_to_string(src.join(file)).unwrap();
    let documents = [read("lib.rs"), read("events/event.rs")];
    let told = read("trace.rs");
    let names: BTreeSet<_> = told
        .split("event = \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(names.len() > 5, "the log has only {names:?}");
    for name in names {
        let row = format!("| `{name}` |");
        let is_listed = documents.iter().any(|text| text.contains(&row));
        assert!(is_listed, "`{name}`");
    }
}

/// Each file below `src` by its path there, without comments.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "found only {files:?}");
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        (name, without_comments(&fs::read_to_string(path).unwrap()))
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The text without its comments, and without the rest of a line where a string has `//` in it.
/// `$crate::` goes, too: what macros name by it is what users of the crate see, and no module.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
        .replace("$crate::", "")
}

fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

/// The first segments of all paths that begin with `crate::`, groups in braces included.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            None => drop(found.insert(identifier(rest))),
            Some(group) => {
                let mut depth = 0;
                let mut at_start = true;
                for (at, char) in group.char_indices() {
                    match char {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_start = true,
                        char if at_start && char.is_alphabetic() => {
                            found.insert(identifier(&group[at..]));
                            at_start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|char| char.is_alphanumeric() || *char == '_')
        .collect()
}

/// Whether a path in the code begins with `dependency::`.
fn names(code: &str, dependency: &str) -> bool {
    code.match_indices(&format!("{dependency}::"))
        .any(|(at, _)| {
            !code[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == ':')
        })
}
