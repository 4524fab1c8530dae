-- When a change was logged, in milliseconds since 1970. Older shells have no unixepoch('subsec').
ALTER TABLE {prefix}key_changes ADD COLUMN at INTEGER;

DROP TRIGGER IF EXISTS {prefix}key_inserted;
DROP TRIGGER IF EXISTS {prefix}key_deleted;
DROP TRIGGER IF EXISTS {prefix}key_updated;

CREATE TRIGGER {prefix}key_inserted AFTER INSERT ON {prefix}keys
BEGIN
    INSERT INTO {prefix}key_changes (id, at) VALUES (
        ifnull(NEW.digest_key, NEW.id),
        CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    );
END;

CREATE TRIGGER {prefix}key_deleted AFTER DELETE ON {prefix}keys
BEGIN
    INSERT INTO {prefix}key_changes (id, at) VALUES (
        ifnull(OLD.digest_key, OLD.id),
        CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    );
END;

-- The largest version there is stays where it is: no record with it is kept from being changed.
CREATE TRIGGER {prefix}key_updated AFTER UPDATE ON {prefix}keys
WHEN (OLD.id, OLD.user_id, OLD.name, OLD.scopes, OLD.unrestricted, OLD.display_prefix,
      OLD.pepper, OLD.secret_hash, OLD.digest_key, OLD.metadata, OLD.created_at,
      OLD.expires_at, OLD.retires_at, OLD.revoked_at, OLD.revocation_reason, OLD.disabled_at,
      OLD.predecessor, OLD.successor, OLD.made_by, OLD.version)
  IS NOT
     (NEW.id, NEW.user_id, NEW.name, NEW.scopes, NEW.unrestricted, NEW.display_prefix,
      NEW.pepper, NEW.secret_hash, NEW.digest_key, NEW.metadata, NEW.created_at,
      NEW.expires_at, NEW.retires_at, NEW.revoked_at, NEW.revocation_reason, NEW.disabled_at,
      NEW.predecessor, NEW.successor, NEW.made_by, NEW.version)
BEGIN
    INSERT INTO {prefix}key_changes (id, at) SELECT DISTINCT
        column1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM (VALUES (ifnull(OLD.digest_key, OLD.id)), (ifnull(NEW.digest_key, NEW.id)));
    UPDATE {prefix}keys SET version = min(OLD.version, 9223372036854775806) + 1
    WHERE id = NEW.id AND NEW.version <= OLD.version;
END;

-- REPLACE removes the records that are in its way without a trigger for deletions.
CREATE TRIGGER {prefix}key_displaced BEFORE INSERT ON {prefix}keys
BEGIN
    INSERT INTO {prefix}key_changes (id, at) SELECT
        ifnull(digest_key, id), CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM {prefix}keys WHERE id = NEW.id OR digest_key = NEW.digest_key;
END;

CREATE TRIGGER {prefix}key_displaced_by_update BEFORE UPDATE OF id, digest_key ON {prefix}keys
WHEN NEW.id IS NOT OLD.id OR NEW.digest_key IS NOT OLD.digest_key
BEGIN
    INSERT INTO {prefix}key_changes (id, at) SELECT
        ifnull(digest_key, id), CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM {prefix}keys WHERE id <> OLD.id AND (id = NEW.id OR digest_key = NEW.digest_key);
END;

-- What tells whether two instances have the same bytes under the id of a pepper.
CREATE TABLE {prefix}key_peppers (
    id TEXT NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 15),
    check_value TEXT NOT NULL
        CHECK (length(check_value) = 64 AND check_value NOT GLOB '*[^0-9a-f]*'),
    created_at INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 253402300799999)
) STRICT, WITHOUT ROWID;
