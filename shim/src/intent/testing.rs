//! A state under test and short ways to ask it for things.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::interface::{self, Interface};
use super::{
    Context, IntentError, Plan, Settings, State, address_group, group, network, port, qos, router,
    rule, subnet,
};
use crate::model::{
    AddressGroup, Network, Port, QosPolicy, Router, SecurityGroup, SecurityGroupRule, Subnet,
};

/// Applies plans to a state, as the controller does.
pub struct Bench {
    pub state: State,
    pub settings: Settings,
    pub now: OffsetDateTime,
}

impl Default for Bench {
    fn default() -> Bench {
        Bench {
            state: State::default(),
            settings: Settings::default(),
            now: OffsetDateTime::UNIX_EPOCH,
        }
    }
}

impl Bench {
    pub fn carry_out<T>(
        &mut self,
        plan: impl FnOnce(&State, Context<'_>) -> Result<Plan<T>, IntentError>,
    ) -> Result<T, IntentError> {
        let context = Context {
            settings: &self.settings,
            now: self.now,
        };
        let plan = plan(&self.state, context)?;
        for mutation in &plan.mutations {
            self.state.apply(mutation);
        }
        Ok(plan.result)
    }

    pub fn network(&mut self, with: Value) -> Result<Network, IntentError> {
        let request = merged(
            json!({"admin_state_up": true, "shared": false, "mtu": 0,
                "port_security_enabled": true}),
            with,
        );
        self.carry_out(|s, c| network::create(s, c, serde_json::from_value(request).unwrap()))
    }

    pub fn subnet(
        &mut self,
        network: &Network,
        cidr: &str,
        with: Value,
    ) -> Result<Subnet, IntentError> {
        let request = json!({
            "network_id": network.common.id, "cidr": cidr, "enable_dhcp": true,
            "ip_version": if cidr.contains(':') { 6 } else { 4 },
            "dns_nameservers": [], "host_routes": [],
        });
        let request = serde_json::from_value(merged(request, with)).unwrap();
        self.carry_out(|s, c| subnet::create(s, c, request))
    }

    pub fn change_subnet(&mut self, id: Uuid, change: Value) -> Result<Subnet, IntentError> {
        let change = serde_json::from_value(change).unwrap();
        self.carry_out(|s, c| subnet::update(s, c, id, change))
    }

    pub fn port(&mut self, network: &Network, with: Value) -> Result<Port, IntentError> {
        let request = json!({
            "network_id": network.common.id, "admin_state_up": true,
            "device_id": "", "device_owner": "", "binding:host_id": "",
        });
        let request = serde_json::from_value(merged(request, with)).unwrap();
        self.carry_out(|s, c| port::create(s, c, request))
    }

    pub fn router(&mut self, with: Value) -> Result<Router, IntentError> {
        let request = json!({"admin_state_up": true, "distributed": false, "ha": false});
        let request = serde_json::from_value(merged(request, with)).unwrap();
        self.carry_out(|_, c| router::create(c, request))
    }

    pub fn change_router(&mut self, id: Uuid, change: Value) -> Result<Router, IntentError> {
        let change = serde_json::from_value(change).unwrap();
        self.carry_out(|s, c| router::update(s, c, id, change))
    }

    /// Adds an interface, by `subnet_id` or `port_id`.
    pub fn attach(&mut self, router: Uuid, which: Value) -> Result<Interface, IntentError> {
        let request = serde_json::from_value(which).unwrap();
        self.carry_out(|s, c| interface::add(s, c, router, request))
    }

    /// Removes an interface, by `subnet_id` or `port_id` or both.
    pub fn detach(&mut self, router: Uuid, which: Value) -> Result<Interface, IntentError> {
        let request = serde_json::from_value(which).unwrap();
        self.carry_out(|s, c| interface::remove(s, c, router, request))
    }

    pub fn group(&mut self, with: Value) -> Result<SecurityGroup, IntentError> {
        let request = merged(json!({"stateful": true}), with);
        self.carry_out(|s, c| group::create(s, c, serde_json::from_value(request).unwrap()))
    }

    /// An ingress rule for IPv4, unless `with` says otherwise.
    pub fn rule(&mut self, group: Uuid, with: Value) -> Result<SecurityGroupRule, IntentError> {
        let request =
            json!({"security_group_id": group, "direction": "ingress", "ethertype": "IPv4"});
        let request = serde_json::from_value(merged(request, with)).unwrap();
        self.carry_out(|s, c| rule::create(s, c, request))
    }

    pub fn address_group(&mut self, addresses: Value) -> Result<AddressGroup, IntentError> {
        let request = serde_json::from_value(json!({"addresses": addresses})).unwrap();
        self.carry_out(|_, c| address_group::create(c, request))
    }

    pub fn policy(&mut self, with: Value) -> Result<QosPolicy, IntentError> {
        let request = merged(json!({"shared": false, "is_default": false}), with);
        self.carry_out(|s, c| qos::create(s, c, serde_json::from_value(request).unwrap()))
    }

    pub fn change_port(&mut self, id: Uuid, change: Value) -> Result<Port, IntentError> {
        let change = serde_json::from_value(change).unwrap();
        self.carry_out(|s, c| port::update(s, c, id, change))
    }
}

fn merged(base: Value, with: Value) -> Value {
    let fields = |value| match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let mut merged = fields(base);
    merged.extend(fields(with));
    Value::Object(merged)
}

/// The addresses of a port, as text.
pub fn addresses(port: &Port) -> Vec<String> {
    port.fixed_ips
        .iter()
        .map(|ip| ip.ip_address.to_string())
        .collect()
}
