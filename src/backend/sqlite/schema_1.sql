-- Ids are 24 bytes, times are milliseconds since 1970 (`unixepoch() * 1000`), scopes have a space between them.
CREATE TABLE {prefix}keys (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 24),
    user_id TEXT NOT NULL,
    name TEXT,
    scopes TEXT NOT NULL,
    unrestricted INTEGER NOT NULL CHECK (unrestricted IN (0, 1)),
    display_prefix TEXT NOT NULL,
    pepper TEXT NOT NULL,
    secret_hash TEXT NOT NULL CHECK (length(secret_hash) = 64 AND secret_hash NOT GLOB '*[^0-9a-f]*'),
    created_at INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 253402300799999),
    expires_at INTEGER CHECK (expires_at BETWEEN 0 AND 253402300799999),
    last_used_at INTEGER CHECK (last_used_at BETWEEN 0 AND 253402300799999),
    revoked_at INTEGER CHECK (revoked_at BETWEEN 0 AND 253402300799999),
    disabled_at INTEGER CHECK (disabled_at BETWEEN 0 AND 253402300799999),
    version INTEGER NOT NULL CHECK (version >= 1),
    CHECK (unrestricted = 0 OR scopes = '')
) STRICT, WITHOUT ROWID;

CREATE INDEX {prefix}keys_by_user ON {prefix}keys (user_id, created_at, id);

-- Which records came, changed or went, whoever wrote them. Noting when a key was used is no change.
CREATE TABLE {prefix}key_changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL
) STRICT;

CREATE TRIGGER {prefix}key_inserted AFTER INSERT ON {prefix}keys
BEGIN
    INSERT INTO {prefix}key_changes (id) VALUES (NEW.id);
END;

CREATE TRIGGER {prefix}key_deleted AFTER DELETE ON {prefix}keys
BEGIN
    INSERT INTO {prefix}key_changes (id) VALUES (OLD.id);
END;

-- Who changes a record by hand needn't think of its version: it is raised here, so that nobody who read
-- the record before can write over it.
CREATE TRIGGER {prefix}key_updated AFTER UPDATE ON {prefix}keys
WHEN (OLD.id, OLD.user_id, OLD.name, OLD.scopes, OLD.unrestricted, OLD.display_prefix, OLD.pepper,
      OLD.secret_hash, OLD.created_at, OLD.expires_at, OLD.revoked_at, OLD.disabled_at, OLD.version)
  IS NOT
     (NEW.id, NEW.user_id, NEW.name, NEW.scopes, NEW.unrestricted, NEW.display_prefix, NEW.pepper,
      NEW.secret_hash, NEW.created_at, NEW.expires_at, NEW.revoked_at, NEW.disabled_at, NEW.version)
BEGIN
    INSERT INTO {prefix}key_changes (id) VALUES (OLD.id);
    INSERT INTO {prefix}key_changes (id) SELECT NEW.id WHERE NEW.id <> OLD.id;
    UPDATE {prefix}keys SET version = OLD.version + 1 WHERE id = NEW.id AND NEW.version <= OLD.version;
END;

-- Who hasn't read the log for so long forgets everything instead.
CREATE TRIGGER {prefix}key_changes_pruned AFTER INSERT ON {prefix}key_changes
WHEN NEW.seq % 1000 = 0
BEGIN
    DELETE FROM {prefix}key_changes WHERE seq <= NEW.seq - 10000;
END;
