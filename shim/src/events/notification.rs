//! The paper's `notify(controllerId, event)`: an event that an OpenStack has matched
//! with its own resources (TABLE III, TABLE IV).

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::Value;
use uuid::Uuid;

use super::types::{LifecycleEvent, Vnic};

/// TABLE IV: the fields of TABLE II, and which resources of OpenStack they are.
///
/// A vNIC's port has to be the one that the port group's name carries; names are for
/// people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Notification {
    /// The event.
    pub event: LifecycleEvent,
    /// The network of each vNIC, in the order of the event's list; none for a vNIC
    /// that is no Neutron port's.
    pub networks: Vec<Option<Uuid>>,
}

/// What TABLE IV adds to TABLE II. Absent, null or empty for what is not OpenStack's.
#[derive(Debug, Deserialize)]
struct Matched {
    #[serde(rename = "instance_name")]
    _instance_name: Option<String>,
    instance_uuid: Option<String>,
    vnic_list: Vec<MatchedVnic>,
}

#[derive(Debug, Deserialize)]
struct MatchedVnic {
    #[serde(rename = "port_name")]
    _port_name: Option<String>,
    port_uuid: Option<String>,
    #[serde(rename = "network_name")]
    _network_name: Option<String>,
    network_uuid: Option<String>,
}

impl TryFrom<Value> for Notification {
    type Error = serde_json::Error;

    fn try_from(body: Value) -> Result<Self, serde_json::Error> {
        let event = LifecycleEvent::deserialize(&body)?;
        let matched = Matched::deserialize(&body)?;
        let mut networks = Vec::new();
        for (vnic, ids) in event.vm.vnic_list.iter().zip(&matched.vnic_list) {
            agree(vnic, id("port_uuid", ids.port_uuid.as_deref())?)?;
            networks.push(id("network_uuid", ids.network_uuid.as_deref())?);
        }
        id("instance_uuid", matched.instance_uuid.as_deref())?;
        Ok(Notification { event, networks })
    }
}

/// The UUID, if there is one.
fn id(field: &str, text: Option<&str>) -> Result<Option<Uuid>, serde_json::Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let id = Uuid::try_parse(text);
    id.map(Some)
        .map_err(|_| serde_json::Error::custom(format!("{field} {text:?} is no UUID")))
}

/// Whether the port that is named is the one that the port group carries, if any.
fn agree(vnic: &Vnic, port: Option<Uuid>) -> Result<(), serde_json::Error> {
    let Some(port) = port else {
        return Ok(());
    };
    match vnic.port_id() {
        Some(carried) if carried != port => Err(serde_json::Error::custom(format!(
            "port_uuid {port} is not the port of pg_name {:?}",
            vnic.pg_name
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::events::types::EventType;

    const PORT: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn table_iv() -> Value {
        json!({
            "event_id": "11111111-1111-1111-1111-111111111111",
            "timestamp": "2026-01-02T03:04:05Z",
            "event_type": "livemigratetest/finish",
            "vm_name": "vm1",
            "vm_uuid": "22222222-2222-2222-2222-222222222222",
            "vm_status": "running",
            "instance_name": "web",
            "instance_uuid": "22222222-2222-2222-2222-222222222222",
            "host_name": "hv1",
            "host_uuid": "33333333-3333-3333-3333-333333333333",
            "vnic_list": [{
                "vnic_name": "eth0",
                "vnic_uuid": "44444444-4444-4444-4444-444444444444",
                "pg_name": format!("{PORT}_101"),
                "pg_uuid": "55555555-5555-5555-5555-555555555555",
                "port_name": "web-0",
                "port_uuid": PORT,
                "network_name": "net",
                "network_uuid": "66666666-6666-6666-6666-666666666666",
                "mac": "02:00:00:00:00:01",
                "port_segmentation_id": 101,
                "ip_list": [{"ip": "10.0.0.1"}],
                "ipv6_list": [{"ipv6": "2001:db8::1"}],
            }],
        })
    }

    fn read(body: Value) -> Result<LifecycleEvent, String> {
        serde_json::from_value(body)
            .map(|told: Notification| told.event)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn table_iv_is_read_with_its_spelling_of_types() {
        let event = read(table_iv()).unwrap();
        assert_eq!(event.event_type, EventType::LiveMigrateFinish);
        assert_eq!(event.vm.vnic_list[0].port_id(), Uuid::parse_str(PORT).ok());
        for nothing in [json!(null), json!("")] {
            let mut body = table_iv();
            body["vnic_list"][0]["port_uuid"] = nothing;
            assert!(read(body).is_ok());
        }
    }

    #[test]
    fn what_is_missing_or_contradicts_is_named() {
        for (field, value, reason) in [
            ("event_type", json!("vmexploded"), "vmexploded"),
            ("vm_status", json!("dancing"), "dancing"),
            ("timestamp", json!(7), "RFC3339"),
            ("vnic_list", json!(null), "null"),
            ("vm_uuid", json!("x"), "UUID"),
        ] {
            let mut body = table_iv();
            body[field] = value;
            let told = read(body).unwrap_err();
            assert!(told.contains(reason), "{field}: {told}");
        }
        let mut body = table_iv();
        body["vnic_list"][0]["port_uuid"] = json!("66666666-6666-6666-6666-666666666666");
        assert!(read(body).unwrap_err().contains("is not the port"));
        let mut body = table_iv();
        body["vnic_list"][0]["network_uuid"] = json!("net");
        assert!(read(body).unwrap_err().contains("network_uuid"));
        let mut body = table_iv();
        body["instance_uuid"] = json!("web");
        assert!(read(body).unwrap_err().contains("instance_uuid"));
        assert!(read(json!([])).is_err());
    }
}
