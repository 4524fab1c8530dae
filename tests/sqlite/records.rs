//! What is written is what is read.

use std::time::Duration;

use tower_api_key::{
    ApiKey, ApiKeyBackend, Cursor, DisplayPrefix, KeyId, KeySource, PageRequest, Pepper, Scopes,
    SecretHash, SqliteBackend, Touch,
};

use crate::support::{folder::Folder, start};

pub fn key(number: u8, user: &str) -> ApiKey {
    let pepper = Pepper::new("v1", crate::support::PEPPER).unwrap();
    let hash = SecretHash::from_hex(pepper.id().clone(), &"ab".repeat(32)).unwrap();
    let mut key = ApiKey::new(
        KeyId::from_bytes([number; 24]),
        user,
        Scopes::of(["notes:read", "notes:write"]).unwrap(),
        hash,
    );
    key.created_at = start() + Duration::from_millis(number.into());
    key
}

#[tokio::test]
async fn every_field_comes_back_as_it_was_written() {
    let folder = Folder::new("sqlite-fields");
    let backend = SqliteBackend::open(folder.join("keys.db")).await.unwrap();
    let plain = key(1, "user_1");
    let mut full = key(2, "Üser 'x'\0;--");
    full.name = Some("naïve \"name\"\0".to_owned());
    full.scopes = Scopes::unrestricted();
    full.expires_at = Some(start() + Duration::from_millis(1));
    full.last_used_at = Some(start() + Duration::from_millis(2));
    full.revoked_at = Some(start() + Duration::from_millis(3));
    full.disabled_at = Some(start() + Duration::from_millis(4));
    full.version = 7;
    let mut none = key(3, "");
    none.scopes = Scopes::none();
    for key in [&plain, &full, &none] {
        assert!(backend.insert(key).await.unwrap());
        assert_eq!(
            format!("{:?}", backend.get_many(&[key.lookup_key()]).await.unwrap()),
            format!("{:?}", [key])
        );
    }
}
