//! Queries of lists: filters, fields, sorting and pages.
//!
//! Semantics are those of the Networking API v2.0 reference, sections "Filtering
//! and Column Selection" to "Pagination", with unknown filters and sort keys refused
//! (extensions `filter-validation` and `sort-key-validation`).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::attribute::{Attribute, Kind};
use super::error::ApiError;
use super::resource::{Resource, View, table, value_of};

/// A list request, checked against the resource's table.
#[derive(Debug, Default)]
pub struct Query {
    filters: Vec<Filter>,
    /// Attributes to show; all if empty.
    pub fields: Vec<String>,
    sort: Vec<SortKey>,
    limit: Option<usize>,
    marker: Option<Uuid>,
    page_reverse: bool,
    /// What links to other pages repeat: everything but marker and direction.
    repeated: Vec<(String, String)>,
}

#[derive(Debug)]
struct Filter {
    name: String,
    /// The values as given.
    given: Vec<String>,
    /// The values in the attribute's normal form, any of which passes.
    values: Vec<Value>,
    tags: Option<TagFilter>,
}

#[derive(Debug, Clone, Copy)]
enum TagFilter {
    All,
    Any,
    NotAll,
    NotAny,
}

#[derive(Debug)]
struct SortKey {
    name: String,
    descending: bool,
}

/// A page of a list.
pub struct Page<'a, R> {
    /// What is on it.
    pub items: Vec<&'a R>,
    /// Query of the next page, if there is one.
    pub next: Option<String>,
    /// Query of the page before, if there is one.
    pub previous: Option<String>,
}

impl Query {
    /// Checks the query part of a URL.
    pub fn parse<R: Resource>(query: &str) -> Result<Query, ApiError> {
        let mut parsed = Query::default();
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut directions = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
            match name.as_str() {
                "limit" => parsed.limit = limit(&value)?,
                "marker" => parsed.marker = Some(marker::<R>(&value)?),
                "page_reverse" => parsed.page_reverse = value.eq_ignore_ascii_case("true"),
                "fields" => parsed.fields.push(value.clone()),
                "sort_key" => parsed.sort.push(SortKey {
                    name: value.clone(),
                    descending: false,
                }),
                "sort_dir" => directions.push(descending(&value)?),
                _ => filters.entry(name.clone()).or_default().push(value.clone()),
            }
            if !matches!(name.as_str(), "marker" | "page_reverse") {
                parsed.repeated.push((name, value));
            }
        }
        let table = table::<R>();
        parsed.set_directions(&table, directions)?;
        for (name, values) in filters {
            parsed.filters.push(Filter::new(&table, name, values)?);
        }
        Ok(parsed)
    }

    fn set_directions(
        &mut self,
        table: &[&'static Attribute],
        directions: Vec<bool>,
    ) -> Result<(), ApiError> {
        if directions.len() > self.sort.len() {
            return Err(ApiError::bad_request(
                "The number of sort_keys and sort_dirs must be same",
            ));
        }
        for (key, descending) in self.sort.iter_mut().zip(directions) {
            key.descending = descending;
        }
        let known = |key: &&SortKey| table.iter().any(|a| a.name == key.name);
        match self.sort.iter().find(|key| !known(key)) {
            Some(key) => Err(ApiError::bad_request(format!(
                "['{}'] is invalid attribute for sort_keys",
                key.name
            ))),
            None => Ok(()),
        }
    }

    /// The page of what `all` has that passes.
    pub fn run<'a, R: Resource>(
        &self,
        all: impl Iterator<Item = &'a R>,
        view: View<'_>,
    ) -> Result<Page<'a, R>, ApiError> {
        let mut items: Vec<&R> = all
            .filter(|item| self.filters.iter().all(|f| f.passes(*item, view)))
            .collect();
        if !self.sort.is_empty() {
            items.sort_by(|a, b| self.compare(*a, *b, view));
        }
        self.page(items)
    }

    fn compare<R: Resource>(&self, a: &R, b: &R, view: View<'_>) -> Ordering {
        let by_key = |key: &SortKey| {
            let found = order(&value_of(a, &key.name, view), &value_of(b, &key.name, view));
            if key.descending {
                found.reverse()
            } else {
                found
            }
        };
        self.sort
            .iter()
            .map(by_key)
            .find(|found| found.is_ne())
            .unwrap_or_else(|| a.common().id.cmp(&b.common().id))
    }

    fn page<'a, R: Resource>(&self, mut items: Vec<&'a R>) -> Result<Page<'a, R>, ApiError> {
        let at = match self.marker {
            None => None,
            Some(marker) => Some(
                items
                    .iter()
                    .position(|item| item.common().id == marker)
                    .ok_or_else(|| ApiError::not_found(R::KIND, &marker.to_string()))?,
            ),
        };
        let limit = self.limit.unwrap_or(items.len());
        let (start, end) = if self.page_reverse {
            let end = at.unwrap_or(items.len());
            (end.saturating_sub(limit), end)
        } else {
            let start = at.map_or(0, |at| at + 1);
            (start, start.saturating_add(limit).min(items.len()))
        };
        let more = end < items.len();
        items.truncate(end);
        items.drain(..start);
        let link = |item: Option<&&R>, reverse| Some(self.link(item?.common().id, reverse));
        let linked = self.limit.is_some();
        Ok(Page {
            next: link(items.last().filter(|_| linked && more), false),
            previous: link(items.first().filter(|_| linked && start > 0), true),
            items,
        })
    }

    fn link(&self, marker: Uuid, reverse: bool) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.repeated);
        query.append_pair("marker", &marker.to_string());
        if reverse {
            query.append_pair("page_reverse", "True");
        }
        query.finish()
    }
}

impl Filter {
    fn new(
        table: &[&'static Attribute],
        name: String,
        given: Vec<String>,
    ) -> Result<Filter, ApiError> {
        let tags = match name.as_str() {
            "tags" => Some(TagFilter::All),
            "tags-any" => Some(TagFilter::Any),
            "not-tags" => Some(TagFilter::NotAll),
            "not-tags-any" => Some(TagFilter::NotAny),
            _ => None,
        };
        let values = match tags {
            Some(_) => given
                .iter()
                .flat_map(|list| list.split(','))
                .map(Value::from)
                .collect(),
            None => attribute_values(table, &name, &given)?,
        };
        Ok(Filter {
            name,
            given,
            values,
            tags,
        })
    }

    fn passes<R: Resource>(&self, resource: &R, view: View<'_>) -> bool {
        if let Some(kind) = self.tags {
            return kind.passes(&resource.common().tags, &self.values);
        }
        if let Some(passes) = resource.special_filter(&self.name, &self.given) {
            return passes;
        }
        match value_of(resource, &self.name, view) {
            Value::Array(items) => items.iter().any(|item| self.values.contains(item)),
            value => self.values.contains(&value),
        }
    }
}

impl TagFilter {
    fn passes(self, tags: &[String], wanted: &[Value]) -> bool {
        let has = |value: &Value| tags.iter().any(|tag| value == tag);
        match self {
            TagFilter::All => wanted.iter().all(has),
            TagFilter::Any => wanted.iter().any(has),
            TagFilter::NotAll => !wanted.iter().all(has),
            TagFilter::NotAny => !wanted.iter().any(has),
        }
    }
}

fn attribute_values(
    table: &[&'static Attribute],
    name: &str,
    given: &[String],
) -> Result<Vec<Value>, ApiError> {
    let attribute = table.iter().find(|a| a.name == name).ok_or_else(|| {
        ApiError::bad_request(format!("['{name}'] is invalid attribute for filtering"))
    })?;
    given
        .iter()
        .map(|text| filter_value(attribute.kind, text))
        .collect::<Result<_, _>>()
        .map_err(|reason| {
            ApiError::bad_request(format!("Invalid input for {name}. Reason: {reason}."))
        })
}

/// A filter's value in the form that the attribute shows. What can be no value of
/// the attribute passes nothing, except where Neutron converts and so refuses.
fn filter_value(kind: Kind, text: &str) -> Result<Value, String> {
    let given = Value::from(text);
    match kind {
        Kind::Bool | Kind::Integer(..) | Kind::AnyInteger => kind.convert(&given),
        Kind::Nullable(_) if text.is_empty() => Ok(Value::Null),
        Kind::Nullable(kind) | Kind::List(kind, _) | Kind::ListOrNull(kind, _) => {
            filter_value(*kind, text)
        }
        _ => Ok(kind.convert(&given).unwrap_or(given)),
    }
}

fn limit(text: &str) -> Result<Option<usize>, ApiError> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(limit) => Ok(Some(limit)),
        Err(_) => Err(ApiError::bad_request(format!(
            "Limit must be an integer 0 or greater and not '{text}'"
        ))),
    }
}

fn marker<R: Resource>(text: &str) -> Result<Uuid, ApiError> {
    text.parse().map_err(|_| ApiError::not_found(R::KIND, text))
}

fn descending(text: &str) -> Result<bool, ApiError> {
    match text {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(ApiError::bad_request(format!(
            "['{text}'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'"
        ))),
    }
}

/// An order of JSON values: null, false, true, numbers, texts, and the rest by
/// their JSON.
fn order(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Number(_) => 2,
            Value::String(_) => 3,
            Value::Array(_) | Value::Object(_) => 4,
        }
    }
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ if rank(a) == 4 && rank(b) == 4 => a.to_string().cmp(&b.to_string()),
        _ => rank(a).cmp(&rank(b)),
    }
}
