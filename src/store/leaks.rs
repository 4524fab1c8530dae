//! Tokens that somebody has found where they don't belong.

use super::ApiKeyStore;
use crate::{
    error::StoreError,
    events::{Event, EventKind},
    key::RevocationReason,
    token::KeyId,
    verify::VerifyError,
};

/// What a token turned out to be that was [reported as leaked](ApiKeyStore::report_leaked).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LeakReport {
    /// It is the token of a key of ours, which is revoked now.
    #[non_exhaustive]
    TruePositive {
        /// Which key.
        key_id: KeyId,
        /// Whether this report has revoked it. Otherwise it was revoked before.
        newly_revoked: bool,
    },
    /// It isn't the token of a key of ours: another form, an unknown id, or the id of a key and another secret.
    FalsePositive,
    /// That can't be told, or the key may not be revoked: report the token again. Where the key's record can't be
    /// read, that won't help before the record is mended, or [deleted](ApiKeyStore::delete).
    Failed(StoreError),
}

impl LeakReport {
    /// Whether it is the token of a key of ours, which is revoked now.
    #[must_use]
    pub fn is_true_positive(&self) -> bool {
        matches!(self, Self::TruePositive { .. })
    }

    /// The key whose token it is.
    #[must_use]
    pub fn key_id(&self) -> Option<&KeyId> {
        match self {
            Self::TruePositive { key_id, .. } => Some(key_id),
            Self::FalsePositive | Self::Failed(_) => None,
        }
    }
}

impl ApiKeyStore {
    /// How many tokens can be reported at once.
    pub const MAX_LEAKED: usize = 1_000;

    /// Revokes the keys whose tokens are among `tokens`, as [leaked](RevocationReason::Leaked): for what a scanner
    /// of public repositories reports, [1,000](Self::MAX_LEAKED) at the most. Says of each token, in their order,
    /// what it is.
    ///
    /// What was made with a leaked key meanwhile, its successor among it, goes on:
    /// [`revoke_all_for_user`](Self::revoke_all_for_user) ends that, too.
    ///
    /// White space around a token doesn't count. Only the right secret does, whatever state its key is in. What has
    /// the id of a key and another secret revokes nothing.
    ///
    /// Where one token [fails](LeakReport::Failed), the others are seen to. Where the backend can't be asked, those
    /// that are left aren't tried, and fail for the same reason.
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore, tokens: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::LeakReport;
    ///
    /// let mut again = Vec::new();
    /// for (report, token) in store.report_leaked(&tokens).await?.into_iter().zip(tokens) {
    ///     match report {
    ///         LeakReport::TruePositive { key_id, .. } => println!("{key_id} had leaked"),
    ///         LeakReport::FalsePositive => {}
    ///         LeakReport::Failed(error) => {
    ///             eprintln!("{error:?}");
    ///             again.push(token);
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::TooMany`], and then nothing was looked at.
    pub async fn report_leaked(
        &self,
        tokens: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Result<Vec<LeakReport>, StoreError> {
        let tokens: Vec<_> = tokens.into_iter().take(Self::MAX_LEAKED + 1).collect();
        if tokens.len() > Self::MAX_LEAKED {
            return Err(StoreError::TooMany {
                at_most: Self::MAX_LEAKED,
            });
        }
        let mut reports = Vec::with_capacity(tokens.len());
        for token in &tokens {
            let report = self.revoke_leaked(token.as_ref()).await;
            let is_outage = matches!(
                &report,
                Err(StoreError::Unavailable(error)) if error.is_outage()
            );
            reports.push(report.unwrap_or_else(LeakReport::Failed));
            if is_outage {
                break;
            }
        }
        // One after the other, they would take as long as it takes to give up each.
        if let Some(last) = reports.last().cloned() {
            reports.resize(tokens.len(), last);
        }
        Ok(reports)
    }

    async fn revoke_leaked(&self, token: &[u8]) -> Result<LeakReport, StoreError> {
        let Ok(token) = self.parse(token.trim_ascii()) else {
            return Ok(LeakReport::FalsePositive);
        };
        match self.identify(&token).await {
            Ok((key_id, _)) => {
                let reported = Event::of(EventKind::LeakReported).key(key_id);
                self.resolver.emitter().emit(reported);
                let leaked = Some(RevocationReason::Leaked);
                Ok(LeakReport::TruePositive {
                    key_id,
                    newly_revoked: self.revoke_for(&key_id, leaked).await?,
                })
            }
            Err(VerifyError::Unavailable(error)) => Err(StoreError::Unavailable(error)),
            Err(_) => Ok(LeakReport::FalsePositive),
        }
    }
}
