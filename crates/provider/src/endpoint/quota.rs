//! Where an account's vendor is asked what is left.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Candidate, Vars, base_url, credential, headers, uri};
use crate::ProviderSpec;
use crate::provider::{ConnectionInput, EndpointError};
use crate::quota_api::{self, QuotaApi};

/// Builds it; the default of [`crate::Provider::quota_api`].
pub(crate) fn build(
    spec: &ProviderSpec,
    input: &ConnectionInput<'_>,
) -> Result<Option<Arc<QuotaApi>>, EndpointError> {
    let base = base_url(spec, input.base_url)?;
    let mut planned = quota_api::calls_of(spec.id.as_str(), &base).peekable();
    if planned.peek().is_none() || !quota_api::is_home(&spec.base_url, &base) {
        return Ok(None);
    }
    let (key, vars) = (credential(spec, input)?, Vars { spec, input });
    vars.check(input.base_url.is_some())?;
    let calls = planned.map(|(url, call)| Ok(call.at(uri(&vars.fill(&url)?)?)));
    let calls = calls.collect::<Result<Vec<_>, EndpointError>>()?;
    let candidate = Candidate {
        dialect: &spec.dialect,
        base_url: Cow::Borrowed(&base),
        chat: "",
        chat_stream: None,
        auto: true,
        primary: true,
    };
    Ok(quota_api::api(calls, headers(spec, &candidate, key, &vars)?))
}
