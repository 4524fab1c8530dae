//! What a URL may say.

use sqlx::postgres::PgSslMode;

use crate::backend::{
    postgres::{
        connect_url::parse,
        url_parameters::{Harmless, IGNORED},
    },
    sql::OpenError,
};

fn with(parameters: &str) -> String {
    format!("postgres://app:hunter2@db.internal/keys?{parameters}")
}

/// The text of the error.
fn refusal(url: &str) -> String {
    let error = parse(url).err().expect("it is refused");
    format!("{error} {error:?}")
}

#[test]
fn g13_the_driver_gets_every_url_parameter_that_it_applies() {
    let url = "postgresql://a:b@c:1/d?host=h&port=2&user=u&dbname=n&password=p%40+\
         &sslmode=verify-ca&ssl-mode=disable&sslrootcert=r&ssl-root-cert=r&ssl-ca=r&sslcert=c\
         &ssl-cert=c&sslkey=k&ssl-key=k&statement-cache-capacity=7&application_name=x%26y\
         &options=-c%20geqo%3Doff&options[jit]=off&options%5Bwork_mem%5D=1MB&";
    let parsed = parse(url).expect("it is good");
    let options = parsed.options;
    assert_eq!((options.get_host(), options.get_port()), ("h", 2));
    assert_eq!(options.get_username(), "u");
    assert_eq!(options.get_database(), Some("n"));
    assert_eq!(options.get_application_name(), Some("x&y"));
    assert!(matches!(options.get_ssl_mode(), PgSslMode::Disable));
    let settings = options.get_options().expect("there are some");
    assert_eq!(settings, "-c geqo=off -c jit=off -c work_mem=1MB");
    assert!(format!("{options:?}").contains("\"p@ \""));
    assert!(parsed.warnings.is_empty());
    let socket = parse("postgres:///n?host=/run/postgresql").expect("it is good");
    assert!(socket.options.get_socket().is_some());
    let address = parse("postgres:///n?hostaddr=::1").expect("it is good");
    assert_eq!(address.options.get_host(), "::1");
}

#[test]
fn g13_a_url_parameter_without_effect_is_a_warning() {
    for parameters in [
        "connect_timeout=10",
        "keepalives=1",
        "keepalives_idle=30",
        "tcp_user_timeout=1",
        "gssencmode=disable",
        "gssencmode=prefer",
        "channel_binding=disable",
        "channel_binding=prefer",
        "sslnegotiation=postgres",
        "requiressl=0",
        "target_session_attrs=any",
        "target_session_attrs=read-write",
        "target_session_attrs=primary",
        "ssl_min_protocol_version=TLSv1.2",
        "client_encoding=auto",
    ] {
        let warnings = parse(&with(parameters)).expect(parameters).warnings;
        let [warning] = &*warnings else {
            panic!("{parameters}: {warnings:?}");
        };
        let (name, value) = parameters.split_once('=').expect("a pair");
        assert!(warning.contains(&format!("`{name}`")), "{warning}");
        assert!(value.len() < 3 || !warning.contains(&format!("={value}")));
    }
    let both = parse(&with("keepalives=1&sslmode=disable&connect_timeout=1"));
    assert_eq!(both.expect("it is good").warnings.len(), 2);
}

#[test]
fn g13_a_url_parameter_that_safety_depends_on_is_refused() {
    for parameters in [
        "channel_binding=require",
        "channel_binding=",
        "gssencmode=require",
        "sslnegotiation=direct",
        "requiressl=1",
        "target_session_attrs=standby",
        "target_session_attrs=read-only",
        "ssl_min_protocol_version=TLSv1.3",
        "sslcertmode=require",
        "sslcrl=/a",
        "require_auth=scram-sha-256",
        "requirepeer=postgres",
        "sslrootcert=system",
        "ssl=true",
        "service=keys",
        "replication=true",
        // In another spelling.
        "channel%5fbinding=require",
        "channel_binding=requir%65",
        "keepalives=1&gssencmode=require",
    ] {
        let text = refusal(&with(parameters));
        let last = parameters.rsplit('&').next().expect("one");
        let name = last.split('=').next().expect("one").replace("%5f", "_");
        assert!(text.contains(&format!("`{name}`")), "{parameters}: {text}");
    }
    for name in ["schema", "search_path", "currentSchema"] {
        let text = refusal(&with(&format!("{name}=auth")));
        assert!(text.contains(name) && text.contains(".schema("), "{text}");
    }
}

#[test]
fn the_table_of_url_parameters_has_no_duplicates_and_is_applied() {
    for (at, parameter) in IGNORED.iter().enumerate() {
        let name = parameter.name;
        let others = &IGNORED[at + 1..];
        assert!(others.iter().all(|other| other.name != name), "{name}");
        let text = refusal(&with(&format!("{name}x=1")));
        assert!(text.contains("not known") || name.contains(char::is_uppercase));
        let value = match &parameter.harmless {
            Harmless::Always => "any",
            Harmless::With(values) => values[0],
            Harmless::Never => continue,
        };
        let parsed = parse(&with(&format!("{name}={value}"))).expect(name);
        assert_eq!(parsed.warnings.len(), 1, "{name}");
    }
}

#[test]
fn g7_an_error_of_a_url_shows_no_value_and_no_part_of_a_password() {
    for url in [
        "postgres://app:a?hunter@db/keys",
        "postgres://app:1?hunter=x@db/keys",
        "postgres://app:1?hunter&x@db/keys",
        "postgres://app:1?HUNTER=x",
        "postgres://app:1#hunter@db/keys",
        "postgres://app:1/hunter@db/keys",
        "postgres://app:hunter@db/keys?sslmode=hunter",
        "postgres://app:hunter@db/keys?port=hunter",
        "postgres://app:hunter@db/keys?hostaddr=hunter",
        "postgres://app:hunter@db/keys?statement-cache-capacity=hunter",
        "postgres://app:hunter@db/keys?channel_binding=hunter",
        "postgres://app:hunter@db/keys?password=hunter&=hunter",
        "postgres://app:hunter@db,db/keys",
        "postgres://app:hunter@db/keys?x\ny=1",
        "mysql://app:hunter@db/keys",
        "hunter",
    ] {
        let text = refusal(url).to_lowercase();
        assert!(!text.contains("hunter"), "{url}: {text}");
    }
    let text = refusal(&with("no_such_thing=hunter2"));
    assert!(text.contains("`no_such_thing`") && !text.contains("hunter2"));
    for name in ["sslmode", "port", "hostaddr", "statement-cache-capacity"] {
        let text = refusal(&with(&format!("{name}=x")));
        assert!(text.contains(&format!("`{name}`")), "{text}");
    }
}

#[test]
fn g13_sslmode_require_with_a_root_certificate_verifies_it() {
    let mode = |parameters: &str| {
        let parsed: Result<_, OpenError> = parse(&with(parameters));
        parsed.expect(parameters).options.get_ssl_mode()
    };
    for root in ["sslrootcert", "ssl-root-cert", "ssl-ca"] {
        let verified = mode(&format!("sslmode=require&{root}=/ca.pem"));
        assert!(matches!(verified, PgSslMode::VerifyCa));
        let full = mode(&format!("{root}=/ca.pem&sslmode=verify-full"));
        assert!(matches!(full, PgSslMode::VerifyFull));
    }
    assert!(matches!(mode("sslmode=require"), PgSslMode::Require));
}
