//! Values that an app suggests for the config fields of an installation or a block.

use std::sync::Arc;

use crate::gateway::Gateway;
use crate::gateway::api::schedules::Of;
use crate::gateway::auth::Caller;
use crate::gateway::engine::run::Ask;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::Fields;

/// The longest key of a field or an input, in bytes.
const KEY_BYTES_MAX: usize = 200;
/// The longest phrase that is searched for, in bytes.
const SEARCH_BYTES_MAX: usize = 1_000;

/// `{field, input?, searchPhrase?, staticInputConfig?}`.
pub async fn ask(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    (of, id): (Of, &str),
    body: &[u8],
) -> Result<Reply, ApiError> {
    of.check(gateway, caller, id).await?;
    let mut fields = Fields::read(body)?;
    let field = fields.required_text("field")?;
    let input = fields.text("input")?;
    let search = fields.text("searchPhrase")?;
    let given = fields.object("staticInputConfig")?;
    fields.finish()?;
    let short = |name: &str, text: &str, most: usize| match text.len() <= most {
        true => Ok(()),
        false => Err(ApiError::bad(format!(
            "`{name}` has more than {most} bytes"
        ))),
    };
    short("field", &field, KEY_BYTES_MAX)?;
    short("input", input.as_deref().unwrap_or_default(), KEY_BYTES_MAX)?;
    let phrase = search.as_deref().unwrap_or_default();
    short("searchPhrase", phrase, SEARCH_BYTES_MAX)?;
    if gateway.is_draining() {
        return Err(ApiError::later(503, "the gateway is about to stop", 2));
    }
    let static_config = given.map(serde_json::to_value).transpose();
    let ask = Ask {
        field,
        input,
        search,
        static_config: static_config.map_err(ApiError::internal)?,
    };
    let suggestions = gateway.engine.suggest(id.to_owned(), ask).await?;
    Ok(Reply::data(&suggestions))
}
