-- Keys of which a digest is kept have no pepper, and are looked up by its first 24 bytes. Ids that name other
-- keys aren't foreign keys: those may be purged.
ALTER TABLE {keys}
    ALTER COLUMN pepper DROP NOT NULL,
    DROP CONSTRAINT "{prefix}keys_display_prefix_check",
    ADD CHECK (octet_length(display_prefix) BETWEEN 1 AND 16),
    ADD COLUMN retires_at timestamptz,
    ADD COLUMN revocation_reason text COLLATE "C",
    ADD COLUMN metadata text COLLATE "C" CHECK (octet_length(metadata) <= 4096),
    ADD COLUMN predecessor bytea CHECK (octet_length(predecessor) = 24),
    ADD COLUMN successor bytea CHECK (octet_length(successor) = 24),
    ADD COLUMN made_by bytea CHECK (octet_length(made_by) = 24),
    ADD COLUMN digest_key bytea,
    ADD CHECK (retires_at >= '1970-01-01 00:00:00+00' AND retires_at < '10000-01-01 00:00:00+00'),
    ADD CHECK ((pepper IS NULL) = (digest_key IS NOT NULL)),
    ADD CHECK (digest_key = decode(left(secret_hash, 48), 'hex'));

CREATE UNIQUE INDEX "{prefix}keys_digest" ON {keys} (digest_key) WHERE digest_key IS NOT NULL;
-- What one record is looked up by is no other's.
CREATE UNIQUE INDEX "{prefix}keys_lookup" ON {keys} (coalesce(digest_key, id));
CREATE INDEX "{prefix}keys_by_age" ON {keys} (created_at, id);
CREATE INDEX "{prefix}keys_unrevoked" ON {keys} (user_id, created_at, id) WHERE revoked_at IS NULL;
CREATE INDEX "{prefix}keys_by_end" ON {keys} (LEAST(expires_at, retires_at));
CREATE INDEX "{prefix}keys_by_revocation" ON {keys} (revoked_at)
    WHERE revoked_at IS NOT NULL AND digest_key IS NULL;
CREATE INDEX "{prefix}keys_by_maker" ON {keys} (made_by) WHERE made_by IS NOT NULL;

-- What is logged is what a record is looked up by.
CREATE OR REPLACE FUNCTION "{schema}"."{prefix}log_key_changes"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    changed bytea[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        changed := ARRAY[NULL::bytea];
    ELSIF TG_OP = 'INSERT' THEN
        SELECT array_agg(few.key) INTO changed
        FROM (SELECT coalesce(digest_key, id) AS key FROM new_rows LIMIT 1001) AS few;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(few.key) INTO changed
        FROM (SELECT coalesce(digest_key, id) AS key FROM old_rows LIMIT 1001) AS few;
    ELSE
        -- All but last_used_at, which no cache needs to know.
        WITH before AS (
            SELECT id, user_id, name, scopes, unrestricted, display_prefix, pepper, secret_hash, digest_key,
                metadata, created_at, expires_at, retires_at, revoked_at, revocation_reason, disabled_at,
                predecessor, successor, made_by, version FROM old_rows
        ), after AS (
            SELECT id, user_id, name, scopes, unrestricted, display_prefix, pepper, secret_hash, digest_key,
                metadata, created_at, expires_at, retires_at, revoked_at, revocation_reason, disabled_at,
                predecessor, successor, made_by, version FROM new_rows
        )
        SELECT array_agg(few.key) INTO changed
        FROM (
            SELECT DISTINCT coalesce(differing.digest_key, differing.id) AS key FROM (
                (SELECT * FROM before EXCEPT SELECT * FROM after)
                UNION ALL
                (SELECT * FROM after EXCEPT SELECT * FROM before)
            ) AS differing
            LIMIT 1001
        ) AS few;
    END IF;
    IF changed IS NULL THEN
        RETURN NULL;
    END IF;
    IF cardinality(changed) > 1000 THEN
        changed := ARRAY[NULL::bytea];
    END IF;
    INSERT INTO {changes} (id) SELECT unnest(changed);
    -- Where the queue is full, transactions that notify fail when they commit. The log is read
    -- without being told, too, a little later.
    IF pg_notification_queue_usage() <= 0.5 THEN
        PERFORM pg_notify('{channel}', '');
    END IF;
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION "{schema}"."{prefix}log_replicated_key"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO {changes} (id) VALUES (coalesce(OLD.digest_key, OLD.id));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {changes} (id) VALUES (coalesce(NEW.digest_key, NEW.id));
    END IF;
    IF pg_notification_queue_usage() <= 0.5 THEN
        PERFORM pg_notify('{channel}', '');
    END IF;
    RETURN NULL;
END
$function$;

DROP TRIGGER "{prefix}key_version" ON {keys};
CREATE TRIGGER "{prefix}key_version" BEFORE UPDATE ON {keys} FOR EACH ROW
    WHEN (NEW.version <= OLD.version AND
        (NEW.id, NEW.user_id, NEW.name, NEW.scopes, NEW.unrestricted, NEW.display_prefix,
            NEW.pepper, NEW.secret_hash, NEW.digest_key, NEW.metadata, NEW.created_at,
            NEW.expires_at, NEW.retires_at, NEW.revoked_at, NEW.revocation_reason, NEW.disabled_at,
            NEW.predecessor, NEW.successor, NEW.made_by, NEW.version)
        IS DISTINCT FROM
        (OLD.id, OLD.user_id, OLD.name, OLD.scopes, OLD.unrestricted, OLD.display_prefix,
            OLD.pepper, OLD.secret_hash, OLD.digest_key, OLD.metadata, OLD.created_at,
            OLD.expires_at, OLD.retires_at, OLD.revoked_at, OLD.revocation_reason, OLD.disabled_at,
            OLD.predecessor, OLD.successor, OLD.made_by, OLD.version))
    EXECUTE FUNCTION "{schema}"."{prefix}raise_key_version"();
ALTER TABLE {keys} ENABLE ALWAYS TRIGGER "{prefix}key_version";

-- Keys that are made when they are claimed. Of what they are claimed with there is the SHA-256.
CREATE TABLE {grants} (
    id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
    claim_hash bytea NOT NULL UNIQUE CHECK (octet_length(claim_hash) = 32),
    user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
    name text COLLATE "C",
    scopes text COLLATE "C" NOT NULL DEFAULT '' CHECK (scopes !~ '^ | $|  '),
    unrestricted boolean NOT NULL DEFAULT false,
    metadata text COLLATE "C" CHECK (octet_length(metadata) <= 4096),
    key_expires_at timestamptz,
    -- In milliseconds, from the claim.
    key_lifetime bigint CHECK (key_lifetime >= 0),
    made_by bytea CHECK (octet_length(made_by) = 24),
    -- Whole milliseconds, since lists are in this order.
    made_at timestamptz(3) NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    claimed_at timestamptz,
    key_id bytea CHECK (octet_length(key_id) = 24),
    revoked_at timestamptz,
    CHECK (NOT unrestricted OR scopes = ''),
    CHECK ((claimed_at IS NULL) = (key_id IS NULL)),
    CHECK (claimed_at IS NULL OR revoked_at IS NULL),
    CHECK (key_expires_at >= '1970-01-01 00:00:00+00' AND key_expires_at < '10000-01-01 00:00:00+00'),
    CHECK (made_at >= '1970-01-01 00:00:00+00' AND made_at < '10000-01-01 00:00:00+00'),
    CHECK (expires_at >= '1970-01-01 00:00:00+00' AND expires_at < '10000-01-01 00:00:00+00'),
    CHECK (claimed_at >= '1970-01-01 00:00:00+00' AND claimed_at < '10000-01-01 00:00:00+00'),
    CHECK (revoked_at >= '1970-01-01 00:00:00+00' AND revoked_at < '10000-01-01 00:00:00+00')
);
CREATE INDEX "{prefix}key_grants_of_user" ON {grants} (user_id, made_at, id);
CREATE INDEX "{prefix}key_grants_by_age" ON {grants} (made_at, id);
CREATE INDEX "{prefix}key_grants_pending" ON {grants} (expires_at, user_id, made_by)
    WHERE claimed_at IS NULL AND revoked_at IS NULL;
CREATE INDEX "{prefix}key_grants_by_claim" ON {grants} (claimed_at) WHERE claimed_at IS NOT NULL;
CREATE INDEX "{prefix}key_grants_by_revocation" ON {grants} (revoked_at) WHERE revoked_at IS NOT NULL;
