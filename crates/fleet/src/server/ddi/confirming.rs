//! Actions that the device, or a person at it, must confirm.

use super::super::auth::Caller;
use super::super::error::{ApiError, ApiResult};
use super::super::{auth, clock};
use super::about::{About, Said, taken};
use super::deployments::what;
use super::{App, document, done};
use crate::ddi::{AutoConfirm, AutoConfirmRequest, ConfirmationBase, ConfirmationFeedback, Links, parse};
use crate::limits::MAX_DDI_BODY;
use crate::store::ActionState;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

pub(super) async fn base(State(app): State<App>, caller: Caller, headers: HeaderMap) -> ApiResult {
    let base = &caller.base;
    let auto_confirm = caller.device.auto_confirm.clone().unwrap_or_default();
    let change = if auto_confirm.active { "deactivateAutoConfirm" } else { "activateAutoConfirm" };
    let mut links = Links::from([(change, format!("{base}/confirmationBase/{change}"))]);
    let open = app.store.open_actions(&caller.device.id).await?;
    if let Some(action) = open.iter().find(|action| action.state == ActionState::Confirming) {
        links.set("confirmationBase", format!("{base}/confirmationBase/{}", action.id));
    }
    document(&headers, &ConfirmationBase { auto_confirm, links })
}

pub(super) async fn activate(State(app): State<App>, caller: Caller, request: Body) -> ApiResult {
    let bytes = auth::read_body(request, MAX_DDI_BODY).await?;
    let asked: AutoConfirmRequest = if bytes.is_empty() {
        AutoConfirmRequest::default()
    } else {
        parse(&bytes).map_err(ApiError::unreadable)?
    };
    if caller.device.auto_confirm.is_some_and(|known| known.active) {
        let text = "the device confirms by itself already";
        return Err(ApiError::coded(StatusCode::CONFLICT, "repo.autoConfAlreadyActive", text));
    }
    let now = clock::now();
    let short = |text: Option<String>| text.map(|text| text.chars().take(512).collect());
    let to = AutoConfirm {
        active: true,
        initiator: short(asked.initiator),
        remark: short(asked.remark),
        activated_at: i64::try_from(now.saturating_mul(1000)).ok(),
    };
    app.store.set_auto_confirm(&caller.device.id, Some(&to), now).await?;
    Ok(done())
}

pub(super) async fn deactivate(State(app): State<App>, caller: Caller, request: Body) -> ApiResult {
    auth::read_body(request, MAX_DDI_BODY).await?;
    app.store.set_auto_confirm(&caller.device.id, None, clock::now()).await?;
    Ok(done())
}

pub(super) async fn waiting(about: About) -> ApiResult {
    let About { app, caller, action, .. } = &about;
    if action.state != ActionState::Confirming {
        return Err(ApiError::no_such("confirmation"));
    }
    let task = about.task().await?;
    about.answer(None, Some(what(app, caller, action, &task)), Links::default()).await
}

pub(super) async fn feedback(said: Said<ConfirmationFeedback>) -> ApiResult {
    let Said { app, caller, action, said } = said;
    taken(app.store.confirm(&caller.device.id, action, said, clock::now()).await?, "confirmation")
}
