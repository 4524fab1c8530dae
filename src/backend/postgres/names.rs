//! What things are called in the database.

use super::super::sql::{OpenError, TablePrefix};

/// The names of our tables, and what is derived from them. The parts were checked to be identifiers.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) schema: String,
    prefix: TablePrefix,
}

impl Names {
    /// # Errors
    ///
    /// [`OpenError::Identifier`].
    pub(super) fn new(schema: &str, prefix: Option<&str>) -> Result<Self, OpenError> {
        // The rules are the same for both.
        TablePrefix::new(schema)?;
        Ok(Self {
            schema: schema.to_owned(),
            prefix: prefix
                .map(TablePrefix::new)
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// A table of ours with its schema, in quotes, since a word of SQL is an identifier, too.
    pub(super) fn table(&self, name: &str) -> String {
        format!(r#""{}"."{}""#, self.schema, self.bare(name))
    }

    /// Its name in the catalog.
    pub(super) fn bare(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The channel on which changes are announced. A hash, because two parts of 32 characters are
    /// more than the 63 that a channel's name can have; where two hashes are the same, one is woken
    /// for nothing.
    pub(super) fn channel(&self) -> String {
        format!("tower_api_key_{:016x}", self.hash("changes"))
    }

    /// The advisory lock that is held while the tables are made.
    pub(super) fn migration_lock(&self) -> i64 {
        self.hash("migration").cast_signed()
    }

    /// The advisory lock that is held while the schema is made, whatever the prefix is.
    pub(super) fn schema_lock(&self) -> i64 {
        fnv_1a(&format!("schema:{}", self.schema)).cast_signed()
    }

    /// The advisory lock that is held while old changes are deleted.
    pub(super) fn pruning_lock(&self) -> i64 {
        self.hash("pruning").cast_signed()
    }

    /// The advisory lock that is held while the grants that are pending are counted, and one more is stored.
    pub(super) fn grants_lock(&self) -> i64 {
        self.hash("grants").cast_signed()
    }

    /// Fills the names into a statement, or several: `{keys}`, `{changes}`, `{grants}`, `{state}`,
    /// `{peppers}`, `{schema}`, `{prefix}`, `{channel}`, `{columns}`; and why an answer from the table
    /// of keys, of grants, of peppers or of changes can't be trusted: `{distrust}`,
    /// `{grants_distrust}`, `{peppers_distrust}`, `{log_distrust}`.
    pub(super) fn fill(&self, template: &str) -> String {
        template
            .replace("{distrust}", &distrust(&["{keys}"]))
            .replace("{grants_distrust}", &distrust(&["{grants}", "{keys}"]))
            .replace("{peppers_distrust}", &distrust(&["{keys}", "{peppers}"]))
            .replace(
                "{log_distrust}",
                &distrust(&["{keys}", "{changes}", "{state}"]),
            )
            .replace("{keys}", &self.table("keys"))
            .replace("{changes}", &self.table("key_changes"))
            .replace("{grants}", &self.table("key_grants"))
            .replace("{state}", &self.table("key_schema"))
            .replace("{peppers}", &self.table("key_peppers"))
            .replace("{schema}", &self.schema)
            .replace("{prefix}", &self.prefix.to_string())
            .replace("{channel}", &self.channel())
            .replace("{columns}", super::super::sql::COLUMNS)
    }

    /// The unique indexes of our tables. What they refuse is taken.
    pub(super) fn unique_indexes(&self) -> [String; 5] {
        [
            "keys_pkey",
            "keys_digest",
            "keys_lookup",
            "key_grants_pkey",
            "key_grants_claim_hash_key",
        ]
        .map(|name| self.bare(name))
    }

    fn hash(&self, purpose: &str) -> u64 {
        fnv_1a(&format!("{purpose}:{}.{}", self.schema, self.prefix))
    }
}

/// An expression: 1 where the server is a standby, 2 where row-level security may hide rows from
/// the role, else 0.
fn distrust(tables: &[&str]) -> String {
    let hides = |table: &&str| format!("row_security_active('{table}'::regclass)");
    let hides: Vec<_> = tables.iter().map(hides).collect();
    let hides = hides.join(" OR ");
    format!("CASE WHEN pg_is_in_recovery() THEN 1 WHEN {hides} THEN 2 ELSE 0 END")
}

/// The same on every node and in every version.
fn fnv_1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_quoted_and_the_longest_still_have_a_channel() {
        let names = Names::new("user", Some("table")).unwrap();
        assert_eq!(names.table("keys"), r#""user"."tablekeys""#);
        for (schema, prefix) in [("a\"b", "x"), ("public", "x y"), ("", "x"), ("Public", "x")] {
            assert!(Names::new(schema, Some(prefix)).is_err());
        }
        let long = "x".repeat(32);
        let names = Names::new(&long, Some(&long)).unwrap();
        assert!(names.channel().len() <= 63);
        assert_ne!(names.channel(), Names::new(&long, None).unwrap().channel());
        // Nodes of different versions have to agree.
        let default = Names::new("public", None).unwrap();
        assert_eq!(default.channel(), "tower_api_key_7c9d62c7539f2abe");
    }
}
