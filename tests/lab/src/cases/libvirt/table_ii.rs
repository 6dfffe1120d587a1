//! An event as TABLE II has it: all fields, no others, and what is in them. The start of a
//! live migration tells its destination besides.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::site::text;

/// Fields of an event.
const FIELDS: [&str; 9] = [
    "event_id",
    "timestamp",
    "event_type",
    "vm_name",
    "vm_uuid",
    "vm_status",
    "host_name",
    "host_uuid",
    "vnic_list",
];

/// Fields of an element of its `vnic_list`.
const VNIC_FIELDS: [&str; 8] = [
    "vnic_name",
    "vnic_uuid",
    "pg_name",
    "pg_uuid",
    "mac",
    "port_segmentation_id",
    "ip_list",
    "ipv6_list",
];

/// What all events of a VM have in common, but for its place and status.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) uuid: Uuid,
    pub(super) pg_name: String,
    pub(super) pg_uuid: String,
    pub(super) mac: String,
    pub(super) tag: u16,
    /// As the first event gave it.
    pub(super) vnic_uuid: Option<String>,
    /// Of the last event.
    pub(super) timestamp: String,
    /// Of all events.
    pub(super) seen: BTreeSet<String>,
}

impl Subject {
    /// Holds that `event` is that one, of the VM on that host.
    pub(super) fn hold(
        &mut self,
        event: &Value,
        (kind, status): (&str, &str),
        (host_name, host_uuid): (&str, Uuid),
        with_vnic: bool,
    ) -> Result<()> {
        let check = || -> Result<()> {
            let mut wanted = FIELDS.to_vec();
            if kind == "livemigratetestart" {
                wanted.push("destination_host_name");
                let to = text(event, "destination_host_name")?;
                ensure!(!to.is_empty() && to != host_name, "it leads to {to:?}");
            }
            fields(event, &wanted)?;
            for (field, wanted) in [
                ("event_type", json!(kind)),
                ("vm_name", json!(self.name)),
                ("vm_uuid", json!(self.uuid)),
                ("vm_status", json!(status)),
                ("host_name", json!(host_name)),
                ("host_uuid", json!(host_uuid)),
            ] {
                ensure!(event[field] == wanted, "{field} is not {wanted}");
            }
            let vnics = event["vnic_list"].as_array().context("vnic_list")?;
            let wanted = usize::from(with_vnic);
            ensure!(vnics.len() == wanted, "vnic_list has not {wanted}");
            Ok(())
        };
        check().with_context(|| format!("{event}"))?;
        self.hold_identity(event)?;
        match event["vnic_list"].get(0) {
            None => Ok(()),
            Some(vnic) => self.hold_vnic(vnic).with_context(|| format!("{event}")),
        }
    }

    /// Its id is new, and its time after that of the last one.
    fn hold_identity(&mut self, event: &Value) -> Result<()> {
        let id = text(event, "event_id")?;
        ensure!(Uuid::try_parse(&id).is_ok(), "event_id {id} is no UUID");
        ensure!(self.seen.insert(id), "an event_id came twice");
        let timestamp = text(event, "timestamp")?;
        // RFC 3339, in UTC: to the second it can be compared as text.
        let second = |text: &str| text.get(..19).map(str::to_owned);
        ensure!(timestamp.ends_with('Z'), "timestamp {timestamp}");
        ensure!(
            second(&timestamp) >= second(&self.timestamp),
            "timestamp {timestamp} is not after {}",
            self.timestamp
        );
        self.timestamp = timestamp;
        Ok(())
    }

    fn hold_vnic(&mut self, vnic: &Value) -> Result<()> {
        fields(vnic, &VNIC_FIELDS)?;
        let uuid = text(vnic, "vnic_uuid")?;
        ensure!(Uuid::try_parse(&uuid).is_ok(), "vnic_uuid is no UUID");
        let same = self.vnic_uuid.get_or_insert_with(|| uuid.clone());
        ensure!(*same == uuid, "vnic_uuid is another one than before");
        ensure!(!text(vnic, "vnic_name")?.is_empty(), "vnic_name is empty");
        for (field, wanted) in [
            ("pg_name", json!(self.pg_name)),
            ("pg_uuid", json!(self.pg_uuid)),
            ("mac", json!(self.mac)),
            ("port_segmentation_id", json!(self.tag)),
            // What libvirt cannot know.
            ("ip_list", json!([])),
            ("ipv6_list", json!([])),
        ] {
            ensure!(vnic[field] == wanted, "{field} is not {wanted}");
        }
        Ok(())
    }
}

fn fields(object: &Value, wanted: &[&str]) -> Result<()> {
    let object = object.as_object().context("no object")?;
    let has: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    ensure!(has == wanted, "its fields are {has:?}");
    Ok(())
}
