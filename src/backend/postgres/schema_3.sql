-- The largest version there is stays where it is: no record with it is kept from being changed.
CREATE OR REPLACE FUNCTION "{schema}"."{prefix}raise_key_version"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    NEW.version := LEAST(OLD.version, 9223372036854775806) + 1;
    RETURN NEW;
END
$function$;

-- What tells whether two instances have the same bytes under the id of a pepper.
CREATE TABLE {peppers} (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9._-]{1,15}$'),
    check_value text COLLATE "C" NOT NULL CHECK (check_value ~ '^[0-9a-f]{64}$'),
    created_at timestamptz(3) NOT NULL DEFAULT now()
);
