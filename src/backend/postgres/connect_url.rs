//! The URL of a database, and the parameters in it.

use std::{borrow::Cow, env, net::IpAddr, str::FromStr};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{
    super::sql::OpenError,
    url_parameters::{Harmless, IGNORED},
};

/// Parameters that the driver applies.
const APPLIED: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// What a URL says.
pub(super) struct ConnectUrl {
    pub(super) options: PgConnectOptions,
    /// One for each parameter that has no effect.
    pub(super) warnings: Vec<String>,
}

/// Reads a URL.
///
/// The driver receives only parameters that it applies: it writes others into the log, with their
/// values.
///
/// # Errors
///
/// [`OpenError`], which never shows a value. It shows the name of an unknown parameter only if that
/// cannot be a part of a mistyped password.
pub(super) fn parse(url: &str) -> Result<ConnectUrl, OpenError> {
    let url = url.trim();
    let has_scheme = ["postgres://", "postgresql://"]
        .into_iter()
        .any(|scheme| url.starts_with(scheme));
    // A fragment has no meaning, and the driver removes control characters.
    if !has_scheme || url.contains('#') || url.contains(|c: char| c.is_ascii_control()) {
        return Err(malformed());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    // A password with a `/` in it: the rest of it would be the name of the database.
    let path = base.splitn(4, '/').nth(3).unwrap_or_default();
    if path.contains('@') {
        return Err(malformed());
    }
    let mut applied = Vec::new();
    let mut warnings = Vec::new();
    let mut has_root = env::var_os("PGSSLROOTCERT").is_some();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(value));
        if is_applied(&name) {
            check_value(&name, &value)?;
            has_root |= ["sslrootcert", "ssl-root-cert", "ssl-ca"].contains(&&*name);
            applied.push(pair);
        } else if let Some(parameter) = IGNORED.iter().find(|known| known.name == name) {
            let (name, advice) = (parameter.name, parameter.advice);
            if matches!(parameter.harmless, Harmless::Never) {
                return Err(OpenError::Unsupported(format!(
                    "the URL parameter `{name}` is not supported: {advice}"
                )));
            }
            if !parameter.harmless.allows(&value) {
                return Err(refused(name, advice));
            }
            warnings.push(format!(
                "the URL parameter `{name}` has no effect: {advice}"
            ));
        } else {
            return Err(unknown(&name, query, pair));
        }
    }
    let url = format!("{base}?{}", applied.join("&"));
    let options = PgConnectOptions::from_str(&url).map_err(|_| malformed())?;
    if options.get_host().contains(',') {
        return Err(refused("host", "it takes one host, and no list"));
    }
    // As libpq does. The driver would check no certificate.
    let options = match options.get_ssl_mode() {
        PgSslMode::Require if has_root => options.ssl_mode(PgSslMode::VerifyCa),
        _ => options,
    };
    Ok(ConnectUrl { options, warnings })
}

fn is_applied(name: &str) -> bool {
    APPLIED.contains(&name) || name.starts_with("options[") && name.ends_with(']')
}

/// Checks what the driver would refuse in words that show the value.
fn check_value(name: &str, value: &str) -> Result<(), OpenError> {
    let (is_good, advice) = match name {
        "sslmode" | "ssl-mode" => (
            PgSslMode::from_str(value).is_ok(),
            "it takes disable, allow, prefer, require, verify-ca or verify-full",
        ),
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" => (
            value != "system",
            "the file of a certificate authority is needed. Without the parameter, \
             sslmode=verify-full trusts public authorities",
        ),
        "port" => (value.parse::<u16>().is_ok(), "it takes one port"),
        "hostaddr" => (value.parse::<IpAddr>().is_ok(), "it takes one IP address"),
        "statement-cache-capacity" => (value.parse::<usize>().is_ok(), "it takes a number"),
        _ => (true, ""),
    };
    if is_good {
        Ok(())
    } else {
        Err(refused(name, advice))
    }
}

/// `name` is a known one.
fn refused(name: &str, advice: &str) -> OpenError {
    OpenError::Unsupported(format!(
        "the URL parameter `{name}` is not supported with this value: {advice}"
    ))
}

fn unknown(name: &str, query: &str, pair: &str) -> OpenError {
    const ENCODE: &str = "If it is part of a password, write what is no letter or digit as %20 and \
         the like";
    let is_letter = |c: char| c.is_ascii_lowercase() || ['_', '-'].contains(&c);
    let looks_like_one = (1..=32).contains(&name.len()) && name.chars().all(is_letter);
    // Behind a `?` in a password, the query has the `@` that ends it.
    OpenError::Unsupported(
        if looks_like_one && pair.contains('=') && !query.contains('@') {
            format!("the URL parameter `{name}` is not known: remove it. {ENCODE}")
        } else {
            format!("the URL has a parameter that is not known, and is not shown here. {ENCODE}")
        },
    )
}

fn malformed() -> OpenError {
    OpenError::Setting {
        setting: "connect",
        problem: "takes a URL: postgres://user:password@host:port/database?sslmode=verify-full, \
            with what isn't a letter or a digit as %20 and the like",
    }
}

/// Decodes a name or a value as the driver does.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let (byte, after) = match (first, others) {
            (b'+', _) => (b' ', others),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high * 16 + low, after),
                _ => (b'%', others),
            },
            _ => (*first, others),
        };
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn digit(character: u8) -> Option<u8> {
    let digit = char::from(character).to_digit(16)?;
    u8::try_from(digit).ok()
}
