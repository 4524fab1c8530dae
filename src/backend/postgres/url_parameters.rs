//! Parameters of libpq and other drivers that the driver does not apply.

/// A parameter that the driver does not apply.
pub(super) struct Ignored {
    pub(super) name: &'static str,
    pub(super) harmless: Harmless,
    /// What to do instead, or why it does not matter.
    pub(super) advice: &'static str,
}

/// With which values a parameter may be ignored without loss of safety.
pub(super) enum Harmless {
    Always,
    With(&'static [&'static str]),
    Never,
}

use Harmless::{Always, Never, With};

impl Harmless {
    pub(super) fn allows(&self, value: &str) -> bool {
        match self {
            Always => true,
            With(values) => values.contains(&value),
            Never => false,
        }
    }
}

const fn ignored(name: &'static str, harmless: Harmless, advice: &'static str) -> Ignored {
    Ignored {
        name,
        harmless,
        advice,
    }
}

const KEEPALIVE: &str = "connections use the keepalive settings of the system, and every call \
     has a time limit";
const NO_GSS: &str = "GSSAPI is not supported. Remove it, and use sslmode=verify-full";
const NO_OAUTH: &str = "OAuth is not supported: use a password, and `password_from` if it changes";
const NO_REVOCATION_LIST: &str =
    "revocation lists are not checked. Remove it if that is acceptable";
const NO_SERVICE_FILE: &str = "service files are not read: write the settings into the URL";
const SCHEMA: &str = "set the schema with `PostgresBackend::builder().schema(name)`";
const ONE_HOST: &str = "there is one host, and a server in recovery is refused";

pub(super) const IGNORED: &[Ignored] = &[
    // Time limits.
    ignored("connect_timeout", Always, "set `acquire_timeout`"),
    ignored("keepalives", Always, KEEPALIVE),
    ignored("keepalives_count", Always, KEEPALIVE),
    ignored("keepalives_idle", Always, KEEPALIVE),
    ignored("keepalives_interval", Always, KEEPALIVE),
    ignored("tcp_user_timeout", Always, KEEPALIVE),
    // Servers.
    ignored("load_balance_hosts", Always, ONE_HOST),
    ignored(
        "target_session_attrs",
        With(&["any", "read-write", "primary", "prefer-standby"]),
        "only a primary is used, since a standby may not have a revocation yet",
    ),
    ignored("service", Never, NO_SERVICE_FILE),
    ignored("servicefile", Never, NO_SERVICE_FILE),
    ignored(
        "replication",
        With(&["0", "false", "no", "off"]),
        "a connection for replication cannot read keys. Remove it",
    ),
    // Sessions.
    ignored("client_encoding", Always, "it is always UTF8"),
    ignored(
        "fallback_application_name",
        Always,
        "set `application_name`",
    ),
    // Encryption.
    ignored(
        "channel_binding",
        With(&["disable", "prefer"]),
        "channel binding is not supported. Remove it, and use sslmode=verify-full against a false \
         server",
    ),
    ignored("gssdelegation", Always, NO_GSS),
    ignored("gssencmode", With(&["disable", "prefer"]), NO_GSS),
    ignored("gsslib", Always, NO_GSS),
    ignored("krbsrvname", Always, NO_GSS),
    ignored(
        "requiressl",
        With(&["0"]),
        "use sslmode=require, or verify-full, which also checks the certificate",
    ),
    ignored("ssl", Never, "use sslmode=verify-full, require, or disable"),
    ignored(
        "ssl_max_protocol_version",
        Always,
        "the newest version of TLS that both know is used",
    ),
    ignored(
        "ssl_min_protocol_version",
        With(&["", "TLSv1", "TLSv1.1", "TLSv1.2"]),
        "the oldest version of TLS is always 1.2. Set ssl_min_protocol_version on the server",
    ),
    ignored(
        "sslcertmode",
        With(&["disable", "allow"]),
        "a certificate is sent if `sslcert` is set and the server requests it. Remove it",
    ),
    ignored("sslcompression", Always, "TLS is never compressed"),
    ignored("sslcrl", Never, NO_REVOCATION_LIST),
    ignored("sslcrldir", Never, NO_REVOCATION_LIST),
    ignored("sslkeylogfile", Always, "keys of TLS are not logged"),
    ignored(
        "sslnegotiation",
        With(&["postgres"]),
        "direct negotiation is not supported. Remove it, and use sslmode=verify-full",
    ),
    ignored(
        "sslpassword",
        Never,
        "encrypted private keys are not supported: decrypt the file that `sslkey` names",
    ),
    ignored("sslsni", Always, "the host name is always sent"),
    ignored(
        "min_protocol_version",
        With(&["3.0"]),
        "the version of the protocol is always 3.0. Remove it",
    ),
    ignored(
        "max_protocol_version",
        Always,
        "the version of the protocol is always 3.0",
    ),
    // Authentication.
    ignored(
        "passfile",
        Never,
        "name the file in the environment variable PGPASSFILE",
    ),
    ignored(
        "require_auth",
        Never,
        "methods of authentication cannot be chosen: choose them in pg_hba.conf, and use \
         sslmode=verify-full",
    ),
    ignored(
        "requirepeer",
        Never,
        "the owner of the server is not checked. Remove it if that is acceptable",
    ),
    ignored("scram_client_key", Never, "use a password"),
    ignored("scram_server_key", Never, "use a password"),
    ignored("oauth_client_id", Never, NO_OAUTH),
    ignored("oauth_client_secret", Never, NO_OAUTH),
    ignored("oauth_issuer", Never, NO_OAUTH),
    ignored("oauth_scope", Never, NO_OAUTH),
    // Parameters of other drivers.
    ignored("connection_limit", Never, "set `max_connections`"),
    ignored("currentSchema", Never, SCHEMA),
    ignored("pgbouncer", Never, "remove it, and set pool_mode = session"),
    ignored("pool_timeout", Never, "set `acquire_timeout`"),
    ignored("schema", Never, SCHEMA),
    ignored("search_path", Never, SCHEMA),
    ignored("statement_timeout", Never, "set `statement_timeout`"),
];
