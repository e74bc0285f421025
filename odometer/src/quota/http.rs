//! The routes of quota under the API's router: bodies in, replies out. What is asked
//! often can also be answered without this router, with the same replies.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use odometer_schemas::quota::{PLANS_MAX, Plan, TenantTerms};
use odometer_schemas::time::TimeMs;
use serde::{Deserialize, Serialize};

use super::Quota;
use super::body::{BODY_BYTES_MAX, Door, parse_owned, request_of};
use super::reply::Reply;
use super::service::Tenant;
use super::terms::WrittenLimit;
use super::validate;
use crate::api::parameters::quoted;
use crate::api::problem::{Problem, ProblemKind};

/// The header fields of the draft, see [`super::ratelimit`].
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What is served: method, path, and what it does.
pub(crate) const ROUTES: [(&str, &str, &str); 10] = [
    ("POST", "/v1/quota/check", "may this much be used?"),
    ("POST", "/v1/quota/reservations", "holds an estimate while work is running"),
    ("POST", "/v1/quota/reservations/{id}/extend", "holds it for longer, or more"),
    ("POST", "/v1/quota/reservations/{id}/commit", "states what was used in all"),
    ("POST", "/v1/quota/reservations/{id}/release", "holds nothing any more"),
    ("GET", "/v1/plans", "every plan"),
    ("GET", "/v1/plans/{plan}", "one plan"),
    ("PUT", "/v1/plans/{plan}", "makes or replaces a plan"),
    ("GET", "/v1/tenants/{tenant}", "a tenant's plan, period anchor and overrides"),
    ("PUT", "/v1/tenants/{tenant}", "sets a tenant's plan, period anchor and overrides"),
];

/// The routes.
pub(crate) fn router(quota: Quota) -> Router {
    Router::new()
        .route("/v1/quota/check", post(check))
        .route("/v1/quota/reservations", post(reserve))
        .route("/v1/quota/reservations/{id}/extend", post(extend))
        .route("/v1/quota/reservations/{id}/commit", post(commit))
        .route("/v1/quota/reservations/{id}/release", post(release))
        .route("/v1/plans", get(plans))
        .route("/v1/plans/{plan}", get(plan).put(put_plan))
        .route("/v1/tenants/{tenant}", get(tenant).put(put_tenant))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(quota)
}

type Body = Result<Bytes, BytesRejection>;
type Named = Result<Path<String>, PathRejection>;

async fn check(State(quota): State<Quota>, headers: HeaderMap, body: Body) -> Response {
    ask(&quota, Ok(Door::Check), &headers, body).await
}

async fn reserve(State(quota): State<Quota>, headers: HeaderMap, body: Body) -> Response {
    ask(&quota, Ok(Door::Reserve), &headers, body).await
}

async fn extend(State(quota): State<Quota>, id: Named, headers: HeaderMap, body: Body) -> Response {
    ask(&quota, named("id", id).map(Door::Extend), &headers, body).await
}

async fn commit(State(quota): State<Quota>, id: Named, headers: HeaderMap, body: Body) -> Response {
    ask(&quota, named("id", id).map(Door::Commit), &headers, body).await
}

async fn release(State(quota): State<Quota>, id: Named, headers: HeaderMap, body: Body) -> Response {
    ask(&quota, named("id", id).map(Door::Release), &headers, body).await
}

async fn ask(quota: &Quota, door: Result<Door, Problem>, headers: &HeaderMap, body: Body) -> Response {
    let request = match (door, json_of(headers, body)) {
        (Ok(door), Ok(body)) => request_of(door, &body, &quota.meters),
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let reply = match request {
        Ok(request) => Reply::of(quota.decide(request).await, &quota.meters),
        Err(problem) => problem.into(),
    };
    reply.into_response()
}

/// The bytes of a body that says it is JSON, or says nothing.
fn json_of(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content_type.is_none_or(is_json) {
        return Err(unsupported());
    }
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Problem::new(ProblemKind::BodyUnreadable, error.body_text(), "send the whole body"),
    })
}

/// Whether a content type is JSON's, with or without parameters.
pub(crate) fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// The problem of a body that is not JSON.
pub(crate) fn unsupported() -> Problem {
    let detail = "the content type is not application/json";
    Problem::new(ProblemKind::UnsupportedMediaType, detail, "send JSON and say so").field("content-type")
}

/// The problem of a body beyond [`BODY_BYTES_MAX`].
pub(crate) fn too_large() -> Problem {
    let detail = format!("the body has more than {BODY_BYTES_MAX} bytes");
    Problem::new(ProblemKind::BodyTooLarge, detail, "no request needs more: shorten its names")
}

fn named(field: &'static str, path: Named) -> Result<String, Problem> {
    let fix = "write it as percent-encoded UTF-8: `pool/7` is `pool%2F7`";
    path.map(|Path(name)| name).map_err(|error| Problem::parameter(field, error.body_text(), fix))
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = HeaderValue::from_static(self.content_type);
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], self.body).into_response();
        let headers = response.headers_mut();
        for (name, value) in [(RATELIMIT_POLICY, self.policies), (RATELIMIT, self.standing)] {
            // Structured fields hold ASCII only, so they are always header values.
            if let Some(value) = HeaderValue::try_from(value).ok().filter(|value| !value.is_empty()) {
                headers.insert(name, value);
            }
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// `PUT /v1/plans/{plan}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanBody {
    /// As the path says it, so that what was read can be put again.
    name: Option<String>,
    limits: Vec<WrittenLimit>,
}

/// `PUT /v1/tenants/{tenant}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantBody {
    plan: Option<String>,
    /// RFC 3339; null takes it away, absence leaves it.
    #[serde(default, deserialize_with = "present")]
    anchor: Option<Option<String>>,
    #[serde(default)]
    overrides: Vec<WrittenLimit>,
}

/// Tells null from absence.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// A plan, as it can be put again.
#[derive(Serialize)]
struct PlanAnswer<'a> {
    name: &'a str,
    limits: &'a [odometer_schemas::quota::Limit],
}

impl<'a> From<&'a Plan> for PlanAnswer<'a> {
    fn from(plan: &'a Plan) -> Self {
        Self { name: &plan.name, limits: &plan.limits }
    }
}

#[derive(Serialize)]
struct TenantAnswer<'a> {
    tenant: &'a str,
    /// The plan that holds.
    plan: &'a str,
    /// Whether it was assigned, or is the default.
    assigned: bool,
    /// RFC 3339; null for calendar months, absent where it was not put or nobody can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<Option<String>>,
    overrides: &'a [odometer_schemas::quota::Limit],
}

async fn plans(State(quota): State<Quota>) -> Reply {
    let plans = quota.service.plans().await;
    Reply::good(&plans.iter().map(PlanAnswer::from).collect::<Vec<_>>())
}

async fn plan(State(quota): State<Quota>, name: Named) -> Result<Reply, Problem> {
    let name = named("plan", name)?;
    let plans = quota.service.plans().await;
    let plan = plans.iter().find(|plan| plan.name == name).ok_or_else(|| unknown_plan(ProblemKind::Unknown, &name))?;
    Ok(Reply::good(&PlanAnswer::from(plan)))
}

async fn put_plan(State(quota): State<Quota>, name: Named, headers: HeaderMap, body: Body) -> Result<Reply, Problem> {
    let name = named("plan", name)?;
    let PlanBody { name: own, limits } = parse_owned(&json_of(&headers, body)?)?;
    if own.is_some_and(|own| own != name) {
        let fix = "leave it out, or put the plan under its own name";
        return Err(Problem::new(ProblemKind::BadField, "`name` is not the plan of the path", fix).field("name"));
    }
    let plan = Plan { name, limits: resolve("limits", limits, &quota)?, is_default: false };
    plan.validate().map_err(|error| bad_terms("limits", &error))?;
    let plans = quota.service.plans().await;
    if plans.len() >= PLANS_MAX && !plans.iter().any(|known| known.name == plan.name) {
        let detail = format!("there are {PLANS_MAX} plans, and no more are allowed");
        return Err(
            Problem::new(ProblemKind::BadField, detail, "replace one; tenants may have overrides").field("plan")
        );
    }
    quota.service.put_plan(plan.clone()).await?;
    Ok(Reply::good(&PlanAnswer::from(&plan)))
}

async fn tenant(State(quota): State<Quota>, tenant: Named) -> Result<Reply, Problem> {
    let tenant = named("tenant", tenant)?;
    validate::tenant(&tenant)?;
    let known = quota.service.tenant(tenant.clone()).await;
    Ok(tenant_reply(&quota, &tenant, &known))
}

fn tenant_reply(quota: &Quota, tenant: &str, Tenant { terms, anchor }: &Tenant) -> Reply {
    let plan = terms.plan.as_deref();
    let assigned = plan.is_some();
    let plan = plan.unwrap_or(&quota.default_plan);
    let anchor = anchor.map(|anchor| anchor.map(|anchor| anchor.to_string()));
    Reply::good(&TenantAnswer { tenant, plan, assigned, anchor, overrides: &terms.overrides })
}

async fn put_tenant(
    State(quota): State<Quota>,
    tenant: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Reply, Problem> {
    let tenant = named("tenant", tenant)?;
    validate::tenant(&tenant)?;
    let TenantBody { plan, anchor, overrides } = parse_owned(&json_of(&headers, body)?)?;
    if let Some(plan) = &plan
        && !quota.service.plans().await.iter().any(|known| known.name == *plan)
    {
        return Err(unknown_plan(ProblemKind::BadField, plan));
    }
    let terms = TenantTerms { plan, overrides: resolve("overrides", overrides, &quota)? };
    terms.validate().map_err(|error| bad_terms("overrides", &error))?;
    let anchor = anchor.map(|anchor| anchor.map(|text| anchor_of(&text)).transpose()).transpose()?;
    quota.service.put_tenant(tenant.clone(), terms.clone(), anchor).await?;
    Ok(tenant_reply(&quota, &tenant, &Tenant { terms, anchor }))
}

fn resolve(
    field: &str,
    limits: Vec<WrittenLimit>,
    quota: &Quota,
) -> Result<Vec<odometer_schemas::quota::Limit>, Problem> {
    let resolve = |(index, limit): (usize, WrittenLimit)| {
        limit.resolve(&quota.meters).map_err(|error| Problem::from(error).field(format!("{field}[{index}]")))
    };
    limits.into_iter().enumerate().map(resolve).collect()
}

fn bad_terms(field: &'static str, error: &odometer_schemas::quota::PlanError) -> Problem {
    Problem::new(ProblemKind::BadField, error.to_string(), "correct what the detail names").field(field)
}

fn unknown_plan(kind: ProblemKind, name: &str) -> Problem {
    let detail = format!("there is no plan `{}`", quoted(name));
    Problem::new(kind, detail, "GET /v1/plans lists them, PUT /v1/plans/{plan} makes one").field("plan")
}

fn anchor_of(text: &str) -> Result<TimeMs, Problem> {
    TimeMs::parse_rfc3339(text).map_err(|error| {
        let detail = format!("`anchor` {error}: `{}`", quoted(text));
        Problem::new(ProblemKind::BadField, detail, "write it as 2026-11-05T00:00:00Z, or null").field("anchor")
    })
}
