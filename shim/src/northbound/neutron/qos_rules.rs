//! Rules of QoS policies, below the policy and below the aliases that need no policy
//! (extension `qos-rules-alias`), and the types of rules that there are.
//!
//! A kind of rule is a table of attributes, whose names are those of the model's
//! fields.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Kind, Post, for_create, for_update};
use super::collection::{resource_id, schema, typed};
use super::document::Document;
use super::error::ApiError;
use super::resource::a;
use crate::intent::{IntentError, QosError, qos};
use crate::model::{QosAction, QosPolicy, QosRule};
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

/// A kind of rule.
struct RuleKind {
    /// Its type, such as `bandwidth_limit`.
    name: &'static str,
    /// Name of its JSON schema.
    schema: &'static str,
    /// Its attributes besides the id.
    attributes: &'static [Attribute],
}

const DIRECTION: Attribute = Attribute::writable(
    "direction",
    Kind::Choice(&["ingress", "egress"]),
    Post::Default("\"egress\""),
    "Which way, seen from the VM.",
);

/// As Neutron's `DB_INTEGER_MAX_VALUE`.
const RATE: Kind = Kind::Integer(0, i32::MAX as i64);

/// As Neutron's `VALID_DSCP_MARKS`.
const DSCP_MARKS: &[i64] = &[
    0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56,
];

static KINDS: [RuleKind; 3] = [
    RuleKind {
        name: "bandwidth_limit",
        schema: "QosBandwidthLimitRule",
        attributes: &[
            Attribute::writable(
                "max_kbps",
                RATE,
                Post::Required,
                "Kilobits (1000) per second; 0 for no limit.",
            ),
            Attribute::writable(
                "max_burst_kbps",
                RATE,
                Post::Default("0"),
                "Burst in kilobits; 0 for the NVE's choice.",
            ),
            DIRECTION,
        ],
    },
    RuleKind {
        name: "packet_rate_limit",
        schema: "QosPacketRateLimitRule",
        attributes: &[
            Attribute::writable(
                "max_kpps",
                RATE,
                Post::Required,
                "Thousands of packets per second; 0 for no limit.",
            ),
            Attribute::writable(
                "max_burst_kpps",
                RATE,
                Post::Default("0"),
                "Burst in thousands of packets; 0 for the NVE's choice.",
            ),
            DIRECTION,
        ],
    },
    RuleKind {
        name: "dscp_marking",
        schema: "QosDscpMarkingRule",
        attributes: &[Attribute::writable(
            "dscp_mark",
            Kind::IntegerOf(DSCP_MARKS),
            Post::Required,
            "Code point that what the VM sends is marked with.",
        )],
    },
];

/// Types that Neutron has and nobody here guarantees.
const UNSUPPORTED: [&str; 2] = ["minimum_bandwidth", "minimum_packet_rate"];

const ID: Attribute = Attribute::read_only("id", Kind::Uuid, "Identity.");

impl RuleKind {
    fn member(&self) -> String {
        format!("{}_rule", self.name)
    }

    fn table(&self) -> Vec<&'static Attribute> {
        self.attributes.iter().collect()
    }

    /// The rule as JSON, if it is of this kind.
    fn shown(&self, rule: &QosRule) -> Option<Value> {
        let mut fields = fields(rule);
        (rule.action.kind() == self.name).then(|| {
            fields.remove("type");
            Value::Object(fields)
        })
    }

    /// What checked attributes say.
    fn action(&self, mut attributes: Map<String, Value>) -> Result<QosAction, ApiError> {
        attributes.insert("type".to_owned(), json!(self.name));
        typed(attributes)
    }

    fn reference(&self, of: &str) -> Value {
        json!({"$ref": format!("#/components/schemas/{of}{}", self.schema)})
    }

    fn wrapped(&self, of: &str, member: &str) -> Value {
        json!({"type": "object", "properties": {member: self.reference(of)}, "required": [member]})
    }
}

fn fields(rule: &QosRule) -> Map<String, Value> {
    match serde_json::to_value(rule) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// A rule as its policy shows it.
pub fn shown_in_policy(policy: Uuid, rule: &QosRule) -> Value {
    let mut fields = fields(rule);
    fields.insert("qos_policy_id".to_owned(), json!(policy));
    Value::Object(fields)
}

/// JSON schemas of all kinds of rules, by name.
pub fn schemas() -> Vec<(String, Value)> {
    let mut schemas = Vec::new();
    for kind in &KINDS {
        let table = kind.table();
        let shown: Vec<&'static Attribute> = [&ID].into_iter().chain(kind.attributes).collect();
        let is_required = |a: &Attribute| matches!(a.post, Post::Required);
        schemas.extend([
            (kind.schema.to_owned(), schema(&shown, |_| true, |_| false)),
            (
                format!("New{}", kind.schema),
                schema(&table, |_| true, is_required),
            ),
            (
                format!("Changed{}", kind.schema),
                schema(&table, |_| true, |_| false),
            ),
        ]);
    }
    let kinds: Vec<Value> = KINDS.iter().map(|kind| kind.reference("")).collect();
    schemas.push(("QosRule".to_owned(), json!({"anyOf": kinds})));
    schemas
}

/// Routes of rules and their types.
pub fn routes(routes: Routes) -> Routes {
    let routes = KINDS.iter().fold(routes, rule_routes);
    let routes = UNSUPPORTED.iter().fold(routes, unsupported_routes);
    let about = |summary: &str| Operation::new("qos", summary);
    let object = || json!({"type": "object"});
    routes
        .add(
            Verb::Get,
            "/v2.0/qos/rule-types",
            about("List the types of rules").answer(200, object()),
            rule_types,
        )
        .add(
            Verb::Get,
            "/v2.0/qos/rule-types/{type}",
            about("Show a type of rules")
                .answer(200, object())
                .errors(&[404]),
            rule_type,
        )
}

fn rule_routes(routes: Routes, kind: &'static RuleKind) -> Routes {
    let (member, name) = (kind.member(), kind.name);
    let all = format!("/v2.0/qos/policies/{{id}}/{member}s");
    let one = format!("{all}/{{rule}}");
    let about = |what: &str, noun: &str| Operation::new("qos", format!("{what} {noun}"));
    let wrapped = |of: &str| kind.wrapped(of, &member);
    let rules = json!({"type": "array", "items": kind.reference("")});
    let routes = routes
        .add(
            Verb::Get,
            &all,
            about(
                "List the",
                &format!("{} rules of a policy", name.replace('_', " ")),
            )
            .answer(
                200,
                json!({"type": "object", "properties": {format!("{member}s"): rules}}),
            )
            .errors(&[404]),
            async move |State(api): State<Api>, Params(id): Params<String>, RawQuery(query)| {
                list(kind, &api, id, query.as_deref().unwrap_or_default())
            },
        )
        .add(
            Verb::Post,
            &all,
            about("Create", &a(&member))
                .body(wrapped("New"))
                .answer(201, wrapped(""))
                .errors(&[400, 404, 409]),
            async move |State(api): State<Api>, Params(id): Params<String>, body: Document| {
                create(kind, api, id, body).await
            },
        )
        .add(
            Verb::Get,
            &one,
            about("Show", &a(&member))
                .answer(200, wrapped(""))
                .errors(&[404]),
            async move |State(api): State<Api>, Params(path): Params<(String, String)>| {
                let place = Place::named(kind, path)?;
                show(&api, &place, kind.member())
            },
        )
        .add(
            Verb::Put,
            &one,
            about("Change", &a(&member))
                .body(wrapped("Changed"))
                .answer(200, wrapped(""))
                .errors(&[400, 404, 409]),
            async move |State(api): State<Api>,
                        Params(path): Params<(String, String)>,
                        body: Document| {
                update(api, Place::named(kind, path)?, body, kind.member()).await
            },
        )
        .add(
            Verb::Delete,
            &one,
            about("Delete", &a(&member)).errors(&[404]),
            async move |State(api): State<Api>, Params(path): Params<(String, String)>| {
                delete(api, Place::named(kind, path)?).await
            },
        );
    ["_", "-"]
        .iter()
        .fold(routes, |routes, dash| alias_routes(routes, kind, dash))
}

/// Neutron's reference writes these paths with underscores, and Neutron has dashes.
fn alias_routes(routes: Routes, kind: &'static RuleKind, dash: &str) -> Routes {
    let member = format!("alias_{}", kind.member());
    let path = format!("/v2.0/qos/{}s/{{rule}}", member.replace('_', dash));
    let noun = a(&kind.member());
    let about = |what: &str| Operation::new("qos", format!("{what} {noun}, of whichever policy"));
    let wrapped = |of: &str| kind.wrapped(of, &member);
    routes
        .add(
            Verb::Get,
            &path,
            about("Show").answer(200, wrapped("")).errors(&[404]),
            async move |State(api): State<Api>, Params(rule): Params<String>| {
                let place = Place::alias(kind, rule)?;
                show(&api, &place, format!("alias_{}", kind.member()))
            },
        )
        .add(
            Verb::Put,
            &path,
            about("Change")
                .body(wrapped("Changed"))
                .answer(200, wrapped(""))
                .errors(&[400, 404, 409]),
            async move |State(api): State<Api>, Params(rule): Params<String>, body: Document| {
                let member = format!("alias_{}", kind.member());
                update(api, Place::alias(kind, rule)?, body, member).await
            },
        )
        .add(
            Verb::Delete,
            &path,
            about("Delete").errors(&[404]),
            async move |State(api): State<Api>, Params(rule): Params<String>| {
                delete(api, Place::alias(kind, rule)?).await
            },
        )
}

/// There are no such rules, and there can be none.
fn unsupported_routes(routes: Routes, name: &&'static str) -> Routes {
    let name = *name;
    let path = format!("/v2.0/qos/policies/{{id}}/{name}_rules");
    let words = name.replace('_', " ");
    let about = |what: &str| Operation::new("qos", format!("{what} {words} rules"));
    routes
        .add(
            Verb::Get,
            &path,
            about("List no").answer(200, json!({"type": "object"})),
            async move || Json(json!({format!("{name}_rules"): []})),
        )
        .add(
            Verb::Post,
            &path,
            about("Refuse").errors(&[400]),
            async move || {
                ApiError::bad_request(format!(
                    "Rules of type {name} are not supported: an NVE limits rates and \
                     guarantees none. GET /v2.0/qos/rule-types lists what is supported"
                ))
            },
        )
}

/// Where a rule is looked for.
struct Place {
    kind: &'static RuleKind,
    /// Any if none.
    policy: Option<Uuid>,
    rule: Uuid,
}

impl Place {
    fn named(kind: &'static RuleKind, path: Option<(String, String)>) -> Result<Place, ApiError> {
        let (policy, rule) = path.ok_or_else(ApiError::no_such_path)?;
        let policy = resource_id::<QosPolicy>(Some(policy))?;
        let place = Place::alias(kind, Some(rule))?;
        Ok(Place {
            policy: Some(policy),
            ..place
        })
    }

    fn alias(kind: &'static RuleKind, rule: Option<String>) -> Result<Place, ApiError> {
        let text = rule.ok_or_else(ApiError::no_such_path)?;
        let rule = text.parse().map_err(|_| missing(&text, None))?;
        let policy = None;
        Ok(Place { kind, policy, rule })
    }

    /// The policy and the rule, if that is of the kind.
    fn find<'a>(
        &self,
        state: &'a crate::intent::State,
    ) -> Result<(Uuid, &'a QosRule), IntentError> {
        let policy = match self.policy {
            Some(policy) => policy,
            None => qos::policy_of_rule(state, self.rule)?.common.id,
        };
        let rule = qos::find_rule(state, policy, self.rule)?;
        match rule.action.kind() == self.kind.name {
            true => Ok((policy, rule)),
            false => Err(QosError::RuleNotFound {
                rule: self.rule.to_string(),
                policy: policy.to_string(),
            }
            .into()),
        }
    }
}

fn missing(rule: &str, policy: Option<Uuid>) -> ApiError {
    let policy = policy.map(|id| id.to_string()).unwrap_or_default();
    let rule = rule.to_owned();
    IntentError::from(QosError::RuleNotFound { rule, policy }).into()
}

/// Filters are the attributes; `fields` chooses what is shown.
fn list(
    kind: &'static RuleKind,
    api: &Api,
    policy: Option<String>,
    query: &str,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<QosPolicy>(policy)?;
    let state = api.controller.snapshot();
    let policy = qos::find(&state, id)?;
    let mut rules: Vec<Value> = policy.rules.iter().filter_map(|r| kind.shown(r)).collect();
    let mut wanted = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "fields" => wanted.push(value.into_owned()),
            name if name == ID.name || kind.attributes.iter().any(|a| a.name == name) => {
                let same = |found: &Value| match found {
                    Value::String(text) => *text == value,
                    found => found.to_string() == value,
                };
                rules.retain(|rule| same(&rule[name]));
            }
            _ => {}
        }
    }
    for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
        rule.retain(|name, _| wanted.is_empty() || wanted.contains(name));
    }
    Ok(Json(json!({format!("{}s", kind.member()): rules})))
}

async fn create(
    kind: &'static RuleKind,
    api: Api,
    policy: Option<String>,
    body: Document,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let policy = resource_id::<QosPolicy>(policy)?;
    let attributes = for_create(&kind.table(), body.one(&kind.member())?)?;
    let action = kind.action(attributes)?;
    let controller = api.controller.clone();
    let made: QosRule = api
        .controller
        .transact(move |state| {
            qos::add_rule(state, controller.context(), policy, action).map_err(ApiError::from)
        })
        .await?;
    let body = json!({kind.member(): kind.shown(&made)});
    Ok((StatusCode::CREATED, Json(body)))
}

fn show(api: &Api, place: &Place, member: String) -> Result<Json<Value>, ApiError> {
    let state = api.controller.snapshot();
    let (_, rule) = place.find(&state)?;
    Ok(Json(json!({member: place.kind.shown(rule)})))
}

async fn update(
    api: Api,
    place: Place,
    body: Document,
    member: String,
) -> Result<Json<Value>, ApiError> {
    let kind = place.kind;
    let change = for_update(&kind.table(), body.one(&member)?)?;
    let controller = api.controller.clone();
    let changed: QosRule = api
        .controller
        .transact(move |state| {
            let (policy, old) = place.find(state)?;
            let mut attributes = fields(old);
            attributes.remove("id");
            attributes.extend(change);
            let rule = QosRule {
                id: old.id,
                action: kind.action(attributes)?,
            };
            let plan = qos::change_rule(state, controller.context(), policy, rule)?;
            Ok::<_, ApiError>(plan)
        })
        .await?;
    Ok(Json(json!({member: kind.shown(&changed)})))
}

async fn delete(api: Api, place: Place) -> Result<StatusCode, ApiError> {
    let controller = api.controller.clone();
    api.controller
        .transact(move |state| {
            let (policy, rule) = place.find(state)?;
            qos::remove_rule(state, controller.context(), policy, rule.id).map_err(ApiError::from)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rule_types() -> Json<Value> {
    let types: Vec<Value> = KINDS
        .iter()
        .map(|kind| json!({"type": kind.name}))
        .collect();
    Json(json!({"rule_types": types}))
}

/// As the extension `qos-rule-type-details` has it.
async fn rule_type(Params(name): Params<String>) -> Result<Json<Value>, ApiError> {
    let name = name.unwrap_or_default();
    let kind = KINDS.iter().find(|kind| kind.name == name);
    let kind = kind.ok_or_else(|| ApiError::not_found("QosRuleType", &name))?;
    let parameters: Vec<Value> = kind.attributes.iter().map(parameter).collect();
    let driver = json!({"name": "sluice", "supported_parameters": parameters});
    let shown = json!({"type": kind.name, "drivers": [driver]});
    Ok(Json(json!({"rule_type": shown})))
}

fn parameter(attribute: &Attribute) -> Value {
    let (kind, values) = match attribute.kind {
        Kind::Integer(start, end) => ("range", json!({"start": start, "end": end})),
        Kind::IntegerOf(choices) => ("choices", json!(choices)),
        Kind::Choice(choices) => ("choices", json!(choices)),
        _ => ("any", Value::Null),
    };
    json!({"parameter_name": attribute.name, "parameter_type": kind, "parameter_values": values})
}
