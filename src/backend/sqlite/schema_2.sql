-- Keys of which a digest is kept have no pepper, `''` here, and are looked up by its first 24 bytes. Columns are
-- added and the table stays, since a service's own tables, views and triggers may hang on it. Ids that name other
-- keys aren't foreign keys: those may be purged.

-- No record had that for a pepper. One that was written so by hand stays what nobody can read.
UPDATE {prefix}keys SET pepper = '?' WHERE pepper = '';

ALTER TABLE {prefix}keys ADD COLUMN retires_at INTEGER CHECK (retires_at BETWEEN 0 AND 253402300799999);
ALTER TABLE {prefix}keys ADD COLUMN revocation_reason TEXT;
ALTER TABLE {prefix}keys ADD COLUMN metadata TEXT CHECK (length(CAST(metadata AS BLOB)) <= 4096);
ALTER TABLE {prefix}keys ADD COLUMN predecessor BLOB CHECK (length(predecessor) = 24);
ALTER TABLE {prefix}keys ADD COLUMN successor BLOB CHECK (length(successor) = 24);
ALTER TABLE {prefix}keys ADD COLUMN made_by BLOB CHECK (length(made_by) = 24);
ALTER TABLE {prefix}keys ADD COLUMN digest_key BLOB
    CHECK ((pepper = '') = (digest_key IS NOT NULL))
    CHECK (digest_key IS NULL OR lower(hex(digest_key)) = substr(secret_hash, 1, 48));

CREATE UNIQUE INDEX {prefix}keys_by_digest ON {prefix}keys (digest_key) WHERE digest_key IS NOT NULL;
CREATE INDEX {prefix}keys_by_age ON {prefix}keys (created_at, id);
CREATE INDEX {prefix}keys_unrevoked ON {prefix}keys (user_id, created_at, id) WHERE revoked_at IS NULL;
CREATE INDEX {prefix}keys_by_end ON {prefix}keys
    (min(ifnull(expires_at, retires_at), ifnull(retires_at, expires_at)));
CREATE INDEX {prefix}keys_by_revocation ON {prefix}keys (revoked_at)
WHERE revoked_at IS NOT NULL AND digest_key IS NULL;
CREATE INDEX {prefix}keys_by_maker ON {prefix}keys (made_by) WHERE made_by IS NOT NULL;

DROP TRIGGER IF EXISTS {prefix}key_inserted;
DROP TRIGGER IF EXISTS {prefix}key_deleted;
DROP TRIGGER IF EXISTS {prefix}key_updated;

-- What is logged is what a record is looked up by.
CREATE TRIGGER {prefix}key_inserted AFTER INSERT ON {prefix}keys
BEGIN
    INSERT INTO {prefix}key_changes (id) VALUES (ifnull(NEW.digest_key, NEW.id));
END;

CREATE TRIGGER {prefix}key_deleted AFTER DELETE ON {prefix}keys
BEGIN
    INSERT INTO {prefix}key_changes (id) VALUES (ifnull(OLD.digest_key, OLD.id));
END;

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
    INSERT INTO {prefix}key_changes (id) VALUES (ifnull(OLD.digest_key, OLD.id));
    INSERT INTO {prefix}key_changes (id) SELECT ifnull(NEW.digest_key, NEW.id)
    WHERE ifnull(NEW.digest_key, NEW.id) <> ifnull(OLD.digest_key, OLD.id);
    UPDATE {prefix}keys SET version = OLD.version + 1 WHERE id = NEW.id AND NEW.version <= OLD.version;
END;

-- Keys that are made when they are claimed. Of what they are claimed with there is the SHA-256.
CREATE TABLE {prefix}key_grants (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    claim_hash BLOB NOT NULL UNIQUE CHECK (length(claim_hash) = 32),
    user_id TEXT NOT NULL,
    name TEXT,
    scopes TEXT NOT NULL,
    unrestricted INTEGER NOT NULL CHECK (unrestricted IN (0, 1)),
    metadata TEXT CHECK (length(CAST(metadata AS BLOB)) <= 4096),
    key_expires_at INTEGER CHECK (key_expires_at BETWEEN 0 AND 253402300799999),
    -- In milliseconds, from the claim.
    key_lifetime INTEGER CHECK (key_lifetime >= 0),
    made_by BLOB CHECK (length(made_by) = 24),
    made_at INTEGER NOT NULL CHECK (made_at BETWEEN 0 AND 253402300799999),
    expires_at INTEGER NOT NULL CHECK (expires_at BETWEEN 0 AND 253402300799999),
    claimed_at INTEGER CHECK (claimed_at BETWEEN 0 AND 253402300799999),
    key_id BLOB CHECK (length(key_id) = 24),
    revoked_at INTEGER CHECK (revoked_at BETWEEN 0 AND 253402300799999),
    CHECK (unrestricted = 0 OR scopes = ''),
    CHECK ((claimed_at IS NULL) = (key_id IS NULL)),
    CHECK (claimed_at IS NULL OR revoked_at IS NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX {prefix}key_grants_by_user ON {prefix}key_grants (user_id, made_at, id);
CREATE INDEX {prefix}key_grants_by_age ON {prefix}key_grants (made_at, id);
CREATE INDEX {prefix}key_grants_pending ON {prefix}key_grants (expires_at, user_id, made_by)
WHERE claimed_at IS NULL AND revoked_at IS NULL;
CREATE INDEX {prefix}key_grants_by_claim ON {prefix}key_grants (claimed_at)
WHERE claimed_at IS NOT NULL;
CREATE INDEX {prefix}key_grants_by_revocation ON {prefix}key_grants (revoked_at)
WHERE revoked_at IS NOT NULL;
