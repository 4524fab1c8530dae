-- The largest version there is stays where it is: no record with it is kept from being changed.
CREATE OR REPLACE FUNCTION "{schema}"."{prefix}raise_key_version"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    NEW.version := LEAST(OLD.version, 9223372036854775806) + 1;
    RETURN NEW;
END
$function$;
