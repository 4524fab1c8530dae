-- What has been done here, and how far the log of changes is gone.
CREATE TABLE {state} (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL,
    -- No change of a later transaction than this one was deleted from the log.
    pruned xid8 NOT NULL DEFAULT '0'
);
INSERT INTO {state} (version) VALUES (0);

CREATE TABLE {keys} (
    id bytea PRIMARY KEY CHECK (octet_length(id) = 24),
    user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
    name text COLLATE "C",
    scopes text COLLATE "C" NOT NULL DEFAULT '' CHECK (scopes !~ '^ | $|  '),
    unrestricted boolean NOT NULL DEFAULT false,
    display_prefix text COLLATE "C" NOT NULL CHECK (octet_length(display_prefix) = 16),
    pepper text COLLATE "C" NOT NULL CHECK (pepper ~ '^[A-Za-z0-9._-]{1,15}$'),
    secret_hash text COLLATE "C" NOT NULL CHECK (secret_hash ~ '^[0-9a-f]{64}$'),
    -- Whole milliseconds, since lists are in this order.
    created_at timestamptz(3) NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    disabled_at timestamptz,
    version bigint NOT NULL DEFAULT 1 CHECK (version >= 1),
    CHECK (NOT unrestricted OR scopes = ''),
    CHECK (created_at >= '1970-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'),
    CHECK (expires_at = 'infinity'
        OR expires_at >= '1970-01-01 00:00:00+00' AND expires_at < '10000-01-01 00:00:00+00'),
    CHECK (last_used_at >= '1970-01-01 00:00:00+00' AND last_used_at < '10000-01-01 00:00:00+00'),
    CHECK (revoked_at >= '1970-01-01 00:00:00+00' AND revoked_at < '10000-01-01 00:00:00+00'),
    CHECK (disabled_at >= '1970-01-01 00:00:00+00' AND disabled_at < '10000-01-01 00:00:00+00')
);
CREATE INDEX "{prefix}keys_of_user" ON {keys} (user_id, created_at, id);

-- Which records have changed. Without an id: any of them may have.
CREATE TABLE {changes} (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bytea,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX "{prefix}key_changes_xid" ON {changes} (xid);

-- With the rights of the owner, so that whoever may change a key need not be able to write the log.
CREATE FUNCTION "{schema}"."{prefix}log_key_changes"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    changed bytea[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        changed := ARRAY[NULL::bytea];
    ELSIF TG_OP = 'INSERT' THEN
        SELECT array_agg(few.id) INTO changed
        FROM (SELECT id FROM new_rows LIMIT 1001) AS few;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(few.id) INTO changed
        FROM (SELECT id FROM old_rows LIMIT 1001) AS few;
    ELSE
        -- All but last_used_at, which no cache needs to know.
        WITH before AS (
            SELECT id, user_id, name, scopes, unrestricted, display_prefix, pepper, secret_hash,
                created_at, expires_at, revoked_at, disabled_at, version FROM old_rows
        ), after AS (
            SELECT id, user_id, name, scopes, unrestricted, display_prefix, pepper, secret_hash,
                created_at, expires_at, revoked_at, disabled_at, version FROM new_rows
        )
        SELECT array_agg(few.id) INTO changed
        FROM (
            SELECT DISTINCT differing.id FROM (
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
REVOKE ALL ON FUNCTION "{schema}"."{prefix}log_key_changes"() FROM PUBLIC;

CREATE TRIGGER "{prefix}key_inserted" AFTER INSERT ON {keys}
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}log_key_changes"();
CREATE TRIGGER "{prefix}key_updated" AFTER UPDATE ON {keys}
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}log_key_changes"();
CREATE TRIGGER "{prefix}key_deleted" AFTER DELETE ON {keys}
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}log_key_changes"();
CREATE TRIGGER "{prefix}key_truncated" AFTER TRUNCATE ON {keys}
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}log_key_changes"();
-- Also in a session that plays back what another server did by statements.
ALTER TABLE {keys} ENABLE ALWAYS TRIGGER "{prefix}key_inserted";
ALTER TABLE {keys} ENABLE ALWAYS TRIGGER "{prefix}key_updated";
ALTER TABLE {keys} ENABLE ALWAYS TRIGGER "{prefix}key_deleted";
ALTER TABLE {keys} ENABLE ALWAYS TRIGGER "{prefix}key_truncated";

-- What logical replication applies fires triggers for rows alone.
CREATE FUNCTION "{schema}"."{prefix}log_replicated_key"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO {changes} (id) VALUES (OLD.id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {changes} (id) VALUES (NEW.id);
    END IF;
    IF pg_notification_queue_usage() <= 0.5 THEN
        PERFORM pg_notify('{channel}', '');
    END IF;
    RETURN NULL;
END
$function$;
REVOKE ALL ON FUNCTION "{schema}"."{prefix}log_replicated_key"() FROM PUBLIC;
CREATE TRIGGER "{prefix}key_replicated" AFTER INSERT OR UPDATE OR DELETE ON {keys}
    FOR EACH ROW EXECUTE FUNCTION "{schema}"."{prefix}log_replicated_key"();
ALTER TABLE {keys} ENABLE REPLICA TRIGGER "{prefix}key_replicated";

-- A change by hand that leaves the version alone would be overwritten by whoever has read the record
-- before it.
CREATE FUNCTION "{schema}"."{prefix}raise_key_version"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END
$function$;
REVOKE ALL ON FUNCTION "{schema}"."{prefix}raise_key_version"() FROM PUBLIC;
CREATE TRIGGER "{prefix}key_version" BEFORE UPDATE ON {keys} FOR EACH ROW
    WHEN (NEW.version <= OLD.version AND
        (NEW.id, NEW.user_id, NEW.name, NEW.scopes, NEW.unrestricted, NEW.display_prefix,
            NEW.pepper, NEW.secret_hash, NEW.created_at, NEW.expires_at, NEW.revoked_at,
            NEW.disabled_at, NEW.version)
        IS DISTINCT FROM
        (OLD.id, OLD.user_id, OLD.name, OLD.scopes, OLD.unrestricted, OLD.display_prefix,
            OLD.pepper, OLD.secret_hash, OLD.created_at, OLD.expires_at, OLD.revoked_at,
            OLD.disabled_at, OLD.version))
    EXECUTE FUNCTION "{schema}"."{prefix}raise_key_version"();
ALTER TABLE {keys} ENABLE ALWAYS TRIGGER "{prefix}key_version";
