//! The calls by which an operator stops a key.

use std::fmt;

use tower_api_key::{ApiKeyStore, LeakReport};

use super::holder::Holder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revocation {
    Revoke,
    RevokeAllForUser,
    Disable,
    ReportLeaked,
}

impl Revocation {
    pub(crate) const ALL: [Self; 4] = [
        Self::Revoke,
        Self::RevokeAllForUser,
        Self::Disable,
        Self::ReportLeaked,
    ];

    /// Stops the holder's key on `store`. An error says why it still works.
    pub(crate) async fn run(self, store: &ApiKeyStore, holder: &Holder) -> Result<(), String> {
        let failed = |error: tower_api_key::StoreError| format!("{error:?}");
        let is_done = match self {
            Self::Revoke => store.revoke(&holder.key).await.map_err(failed)?,
            Self::RevokeAllForUser => {
                let revoked = store.revoke_all_for_user(&holder.user).await;
                revoked.map_err(failed)? > 0
            }
            Self::Disable => store.disable(&holder.key).await.map_err(failed)?,
            Self::ReportLeaked => {
                let reports = store.report_leaked([&holder.token]).await;
                match &reports.map_err(failed)?[..] {
                    [LeakReport::TruePositive { newly_revoked, .. }] => *newly_revoked,
                    reports => return Err(format!("{reports:?}")),
                }
            }
        };
        is_done
            .then_some(())
            .ok_or_else(|| "nothing changed".to_owned())
    }

    /// Returns what a verification of the key answers afterwards.
    pub(crate) fn answer(self) -> &'static str {
        match self {
            Self::Disable => "disabled",
            _ => "revoked",
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoke => "revoke",
            Self::RevokeAllForUser => "revoke_all_for_user",
            Self::Disable => "disable",
            Self::ReportLeaked => "report_leaked",
        })
    }
}
