//! The rules, by name.

use super::{
    bench::Bench, changes, claims, digests, dropped, endings, fields, filters, frozen,
    grant_limits, grant_lists, grants, lists, makers, peppers, reads, report::Run, rotations,
    touches, writes,
};
use crate::backend::ApiKeyBackend;

pub(super) const OPENS: &str = "two handles on one database can be had";

/// What sources have to keep, and backends, too.
pub(super) async fn of_sources<B: ApiKeyBackend>(bench: &Bench<B>, run: &mut Run) {
    let b = bench;
    run.rule("what was written can be read at once", || {
        writes::can_be_read_at_once(b)
    })
    .await;
    run.rule("scopes survive, and none isn't unrestricted", || {
        fields::scopes(b)
    })
    .await;
    run.rule("texts survive", || fields::texts(b)).await;
    run.rule("times survive to the millisecond", || fields::times(b))
        .await;
    run.rule("hashes and versions survive", || {
        fields::hashes_and_versions(b)
    })
    .await;
    run.rule("get_many finds 1,000 keys at once", || reads::find_many(b))
        .await;
    run.rule("get_many takes any request", || reads::take_any_request(b))
        .await;
    run.rule("a record that can't be read is an error", || {
        reads::what_is_malformed_is_an_error(b)
    })
    .await;
    run.rule("a record is read whole", || {
        writes::reads_see_whole_records(b)
    })
    .await;
    run.rule("every change is told in time", || {
        changes::are_told_in_time(b)
    })
    .await;
    run.rule("caches that are gone are in nobody's way", || {
        changes::go_on_without_those_who_left(b)
    })
    .await;
    run.rule("a change wakes those who wait", || changes::wake(b))
        .await;
    run.rule("a feed without news is quiet", || {
        changes::are_quiet_without_news(b)
    })
    .await;
    run.rule("changes of many writers all arrive", || {
        changes::of_many_writers_arrive(b)
    })
    .await;
}

/// What backends have to keep besides.
pub(super) async fn of_backends<B: ApiKeyBackend>(bench: &Bench<B>, run: &mut Run) {
    let b = bench;
    run.rule("insert never overwrites", || {
        writes::insert_never_overwrites(b)
    })
    .await;
    run.rule("of many insertions of one id, one wins", || {
        writes::one_insertion_wins(b)
    })
    .await;
    run.rule("a key is made only while its maker is as it was", || {
        makers::are_as_they_were(b)
    })
    .await;
    run.rule("update compares versions", || {
        writes::update_compares_versions(b)
    })
    .await;
    run.rule("of many updates of one version, one wins", || {
        writes::one_update_wins(b)
    })
    .await;
    run.rule("update keeps a revocation", || {
        writes::update_keeps_a_revocation(b)
    })
    .await;
    run.rule("update keeps the later use", || {
        writes::update_keeps_the_later_use(b)
    })
    .await;
    run.rule("update keeps the owner", || {
        writes::update_keeps_the_owner(b)
    })
    .await;
    run.rule("a change that the database ignores is an error", || {
        frozen::changes_are_errors(b)
    })
    .await;
    run.rule("delete says whether the key was there", || {
        writes::delete_says_whether(b)
    })
    .await;
    run.rule("of many deletions of one key, one wins", || {
        writes::one_deletion_wins(b)
    })
    .await;
    run.rule("keys are found by a digest and by their id", || {
        digests::are_found(b)
    })
    .await;
    run.rule("users are told apart byte by byte", || fields::users(b))
        .await;
    run.rule("lists are in order", || lists::are_in_order(b))
        .await;
    run.rule("lists have no other user's keys", || {
        lists::have_no_others(b)
    })
    .await;
    run.rule("pages are as long as was asked for", || {
        lists::have_a_limit(b)
    })
    .await;
    run.rule("pages neither repeat nor hide keys", || {
        lists::neither_repeat_nor_hide(b)
    })
    .await;
    run.rule("1,000 keys are touched and listed at once", || {
        reads::touch_and_list_many(b)
    })
    .await;
    run.rule("touch never goes back and changes nothing else", || {
        touches::never_go_back(b)
    })
    .await;
    run.rule("touch ignores unknown keys", || {
        touches::ignore_unknown_keys(b)
    })
    .await;
    run.rule("touches meet", || touches::meet(b)).await;
    run.rule("a touch is no change", || changes::are_not_touches(b))
        .await;
    run.rule("a dropped write is done whole or not at all", || {
        dropped::writes_are_whole(b)
    })
    .await;
    run.rule("dropped calls use nothing up", || {
        dropped::nothing_is_used_up(b)
    })
    .await;
    run.rule("a write is told though its caller left", || {
        dropped::changes_are_told(b)
    })
    .await;
}

/// What backends have to keep with which keys can be handed off.
pub(super) async fn of_grants<B: ApiKeyBackend>(bench: &Bench<B>, run: &mut Run) {
    let b = bench;
    run.rule("grants survive", || grants::survive(b)).await;
    run.rule("insert_grant never overwrites", || {
        grants::are_never_overwritten(b)
    })
    .await;
    run.rule("pending grants are bounded", || {
        grant_limits::are_bounded(b)
    })
    .await;
    run.rule("lists of grants are in order", || {
        grant_lists::are_in_order(b)
    })
    .await;
    run.rule("lists of pending grants have those alone", || {
        grant_lists::of_pending_have_those_alone(b)
    })
    .await;
    run.rule("a grant is revoked once, whatever the time", || {
        grants::are_revoked_once(b)
    })
    .await;
    run.rule("all open grants of a user are revoked", || {
        grants::are_revoked_by_user(b)
    })
    .await;
    run.rule("of many claims, one wins", || claims::are_won_by_one(b))
        .await;
    run.rule("a grant is claimed or revoked, not both", || {
        claims::meet_revocations(b)
    })
    .await;
    run.rule("what isn't pending isn't claimed", || {
        claims::need_a_pending_grant(b)
    })
    .await;
    run.rule("a claim is done whole or not at all", || {
        claims::are_whole(b)
    })
    .await;
    run.rule("a claim sees that its maker changed", || {
        claims::see_the_maker_change(b)
    })
    .await;
    run.rule("a claim is told in time", || claims::are_told(b))
        .await;
}

/// And of keys and peppers that others take the place of.
pub(super) async fn of_rotations<B: ApiKeyBackend>(bench: &Bench<B>, run: &mut Run) {
    let b = bench;
    run.rule("a key and its successor are written whole", || {
        rotations::are_whole(b)
    })
    .await;
    run.rule(
        "of many rotations of one key, one wins and no orphan stays",
        || rotations::one_wins(b),
    )
    .await;
    run.rule("a rotation is told", || changes::of_rotations_are_told(b))
        .await;
    run.rule("the check value of a pepper stays", || {
        peppers::checks_stay(b)
    })
    .await;
    if b.settings.pepper_usage {
        run.rule("keys are counted by pepper", || peppers::are_counted(b))
            .await;
    }
}

/// What backends have to keep where keys of everybody are looked at.
pub(super) async fn of_many_keys<B: ApiKeyBackend>(bench: &Bench<B>, run: &mut Run) {
    let b = bench;
    run.rule("a revocation is done once", || endings::is_once(b))
        .await;
    run.rule("all keys of a user are revoked and named", || {
        endings::of_a_user_are_revoked(b)
    })
    .await;
    if b.settings.filters {
        run.rule("lists have what fits a filter", || {
            filters::have_what_fits(b)
        })
        .await;
    }
    if b.settings.purges {
        run.rule("a purge removes what ended before and nothing else", || {
            endings::of_long_ago_are_purged(b)
        })
        .await;
        run.rule("a key that is renewed isn't purged", || {
            endings::that_are_renewed_stay(b)
        })
        .await;
    }
}
