//! How the programs ask for a cache of a certain size, and what it says of itself.

use tower_api_key::{CacheConfig, CachedResolver, CachedResolverBuilder};

/// Room for so many keys.
pub fn with_capacity(builder: CachedResolverBuilder, capacity: usize) -> CachedResolverBuilder {
    builder.cache(CacheConfig::new().capacity(capacity))
}

pub fn print_stats(resolver: &CachedResolver) {
    let stats = resolver.cache_stats();
    println!(
        "the cache: {} hits, {} misses, {} loads, {} evictions; {} entries, {} of unknown ids",
        stats.hits,
        stats.misses,
        stats.loads,
        stats.evictions,
        stats.entries,
        stats.unknown_entries
    );
}
