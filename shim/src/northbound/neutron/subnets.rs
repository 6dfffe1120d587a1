//! Subnets.

use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Field, Kind, Post};
use super::resource::{Changeable, Resource, View};
use crate::intent::subnet::{
    self, MAX_NAMESERVERS, MAX_POOLS, MAX_ROUTES, NewSubnet, SubnetChange,
};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{Common, Mutation, Subnet};

const POOL: Kind = Kind::Record(&[
    Field {
        name: "start",
        kind: Kind::Ip,
        required: true,
    },
    Field {
        name: "end",
        kind: Kind::Ip,
        required: true,
    },
]);

const ROUTE: Kind = Kind::Record(&[
    Field {
        name: "destination",
        kind: Kind::Cidr,
        required: true,
    },
    Field {
        name: "nexthop",
        kind: Kind::Ip,
        required: true,
    },
]);

const IPV6_MODE: Kind = Kind::Choice(&["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]);

impl Resource for Subnet {
    const MEMBER: &'static str = "subnet";
    const COLLECTION: &'static str = "subnets";
    const KIND: &'static str = "Subnet";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::fixed("network_id", Kind::Uuid, Post::Required, "Its network."),
        Attribute::fixed(
            "ip_version",
            Kind::Integer(4, 6),
            Post::Required,
            "4 or 6; must be that of cidr.",
        ),
        Attribute::fixed("cidr", Kind::Cidr, Post::Required, "Its prefix."),
        Attribute::writable(
            "gateway_ip",
            Kind::Nullable(&Kind::Ip),
            Post::Optional,
            "Its router's address: the first usable one if absent, none if null.",
        ),
        Attribute::writable(
            "enable_dhcp",
            Kind::Bool,
            Post::Default("true"),
            "Whether addresses are handed out by DHCP.",
        ),
        Attribute::writable(
            "allocation_pools",
            Kind::List(&POOL, MAX_POOLS),
            Post::Optional,
            "Where ports get their addresses from: all but the gateway if absent.",
        ),
        Attribute::writable(
            "dns_nameservers",
            Kind::List(&Kind::Ip, MAX_NAMESERVERS),
            Post::Default("[]"),
            "DNS servers for DHCP.",
        ),
        Attribute::writable(
            "host_routes",
            Kind::List(&ROUTE, MAX_ROUTES),
            Post::Default("[]"),
            "Routes for DHCP.",
        ),
        Attribute::fixed(
            "ipv6_ra_mode",
            Kind::Nullable(&IPV6_MODE),
            Post::Default("null"),
            "What router advertisements say; none are sent if null.",
        ),
        Attribute::fixed(
            "ipv6_address_mode",
            Kind::Nullable(&IPV6_MODE),
            Post::Default("null"),
            "How its ports get their addresses; from the pools if null.",
        ),
        Attribute::fixed(
            "subnetpool_id",
            Kind::Null,
            Post::Default("null"),
            "Always null: there are no subnet pools.",
        ),
    ];
    type New = NewSubnet;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.subnets()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.subnet(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, _view: View<'_>) -> Value {
        match name {
            "network_id" => json!(self.network_id),
            "ip_version" => json!(if self.cidr.network().is_ipv4() { 4 } else { 6 }),
            "cidr" => json!(self.cidr),
            "gateway_ip" => json!(self.gateway_ip),
            "enable_dhcp" => json!(self.enable_dhcp),
            "allocation_pools" => json!(self.allocation_pools),
            "dns_nameservers" => json!(self.dns_nameservers),
            "host_routes" => json!(self.host_routes),
            "ipv6_ra_mode" => json!(self.ipv6_ra_mode),
            "ipv6_address_mode" => json!(self.ipv6_address_mode),
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutSubnet(self)
    }

    fn create(
        state: &State,
        context: Context<'_>,
        request: NewSubnet,
    ) -> Result<Plan<Self>, IntentError> {
        subnet::create(state, context, request)
    }

    fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        subnet::delete(state, context, id)
    }
}

impl Changeable for Subnet {
    type Change = SubnetChange;

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: SubnetChange,
    ) -> Result<Plan<Self>, IntentError> {
        subnet::update(state, context, id, change)
    }
}
