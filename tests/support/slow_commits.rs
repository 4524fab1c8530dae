//! Commits that take a while, as they do where a synchronous standby is far away.

use std::{fmt::Write, time::Duration};

/// The setting by which a session says how many seconds its commits take.
pub const SETTING: &str = "slow_commits.seconds";

/// Returns statements that let each transaction sleep once when it commits, with all its locks, if
/// it changes one of `tables`. It sleeps for `time` unless its session has a [`SETTING`].
pub fn statements(tables: &[&str], time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let mut statements = format!(
        "CREATE OR REPLACE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF current_setting('slow_commits.slept_in', true)
                 IS DISTINCT FROM pg_current_xact_id()::text
             THEN
                 PERFORM set_config('slow_commits.slept_in', pg_current_xact_id()::text, true);
                 PERFORM pg_sleep(coalesce(
                     nullif(current_setting('{SETTING}', true), '')::float8, {seconds}));
             END IF;
             RETURN NULL;
         END $$;"
    );
    for table in tables {
        write!(
            statements,
            "DROP TRIGGER IF EXISTS slow_commit ON {table};
             CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT OR UPDATE OR DELETE ON {table}
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();"
        )
        .unwrap();
    }
    statements
}
