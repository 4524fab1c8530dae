//! The three places where keys are kept, and stores on them as several processes have.

use tower_api_key::{
    ApiKeyStore, ApiKeyStoreBuilder, ClaimRefusal, GrantLimits, HandedOff, HandoffToken,
    ManualClock, MemoryBackend, NewApiKey, Pepper, Peppers, PostgresBackend, Scopes, SqliteBackend,
    StoreError,
};

use crate::support::{PEPPER, USER, folder::Folder, postgres::Server, start};

pub const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

pub struct Database {
    place: Place,
    pub clock: ManualClock,
    pub limits: GrantLimits,
}

pub enum Place {
    Memory(MemoryBackend),
    Sqlite(Folder),
    Postgres(Server),
}

impl Database {
    fn at(place: Place) -> Self {
        Self {
            place,
            clock: ManualClock::new(start()),
            limits: GrantLimits::new().per_user(1_000),
        }
    }

    pub fn memory() -> Self {
        Self::at(Place::Memory(MemoryBackend::new()))
    }

    pub fn sqlite(name: &str) -> Self {
        Self::at(Place::Sqlite(Folder::new(name)))
    }

    /// None where tests of PostgreSQL may be skipped, which is printed.
    pub fn postgres() -> Option<Self> {
        Server::start().map(|server| Self::at(Place::Postgres(server)))
    }

    /// All three. Blocks: call it before there is something else to do on the thread.
    pub fn all(name: &str) -> Vec<Self> {
        let mut all = vec![Self::memory(), Self::sqlite(name)];
        all.extend(Self::postgres());
        all
    }

    /// A store with connections of its own, as each process has.
    pub async fn open(&self) -> ApiKeyStore {
        let builder = match &self.place {
            Place::Memory(backend) => ApiKeyStore::builder(backend.clone()),
            Place::Sqlite(folder) => {
                let file = folder.join("keys.db");
                ApiKeyStore::builder(SqliteBackend::open(file).await.unwrap())
            }
            Place::Postgres(server) => {
                let backend = PostgresBackend::connect(&server.url()).await.unwrap();
                ApiKeyStore::builder(backend)
            }
        };
        self.build(builder).await
    }

    pub async fn build(&self, builder: ApiKeyStoreBuilder) -> ApiKeyStore {
        let pepper = Pepper::new("v1", PEPPER).unwrap();
        let builder = builder.peppers(Peppers::new(pepper));
        let builder = builder.clock(self.clock.clone()).grant_limits(self.limits);
        builder.build().await.unwrap()
    }

    pub async fn two(&self) -> [ApiKeyStore; 2] {
        [self.open().await, self.open().await]
    }

    pub fn place(&self) -> &Place {
        &self.place
    }
}

pub fn scopes(scopes: &[&str]) -> Scopes {
    Scopes::of(scopes).unwrap()
}

pub fn notes() -> NewApiKey {
    NewApiKey::for_user(USER, scopes(&["notes:read"])).name("laptop")
}

pub async fn handed_off(store: &ApiKeyStore) -> HandedOff {
    store.hand_off(notes(), MINUTE).await.unwrap()
}

/// Why a claim is refused.
pub async fn refusal(store: &ApiKeyStore, token: &HandoffToken) -> ClaimRefusal {
    match store.claim(token).await.unwrap_err() {
        StoreError::NotClaimable(why) => why,
        error => panic!("{error}"),
    }
}
