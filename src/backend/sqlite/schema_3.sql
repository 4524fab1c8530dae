-- The largest version there is stays where it is: no record with it is kept from being changed.
DROP TRIGGER IF EXISTS {prefix}key_updated;

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
    UPDATE {prefix}keys SET version = min(OLD.version, 9223372036854775806) + 1
    WHERE id = NEW.id AND NEW.version <= OLD.version;
END;
