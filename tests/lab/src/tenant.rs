//! What tenants ask of Neutron: networks, routers, security groups, QoS policies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::neutron::{self, text};
use crate::site::Site;
use crate::vm::{Interface, Setting};
use crate::wait;

/// Prefix length of every IPv4 subnet.
const PREFIX: u8 = 24;

/// How soon after a request traffic has to obey it.
pub const OBEDIENCE: Duration = Duration::from_secs(1);

/// How long a VM that has moved may take until its port is in force.
const PLACED: Duration = Duration::from_secs(10);

/// A network and its ids.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// Its VNI.
    pub vni: u32,
    /// Bytes of the largest IP packet in it.
    pub mtu: u16,
    /// Whether its VMs have default routes to the subnets' gateways.
    pub routed: bool,
    /// Its subnets, IPv4 first.
    pub subnets: Vec<Subnet>,
}

/// A subnet of a network.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Its UUID.
    pub id: String,
    /// Its first address.
    pub first: IpAddr,
    /// Whether Neutron makes a port's address of its MAC address (SLAAC).
    pub automatic: bool,
    /// Its gateway, if any.
    pub gateway: Option<IpAddr>,
}

impl Subnet {
    fn parse(subnet: &Value) -> Result<Subnet> {
        let cidr = text(subnet, "cidr")?;
        let (first, _) = cidr.split_once('/').context("no prefix length")?;
        let gateway = subnet["gateway_ip"].as_str();
        Ok(Subnet {
            id: neutron::id(subnet)?,
            first: first.parse()?,
            automatic: matches!(
                subnet["ipv6_address_mode"].as_str(),
                Some("slaac" | "dhcpv6-stateless")
            ),
            gateway: gateway.map(str::parse).transpose()?,
        })
    }

    /// Its address with that last number.
    pub fn address(&self, number: u8) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let [a, b, c, _] = first.octets();
                Ipv4Addr::new(a, b, c, number).into()
            }
            IpAddr::V6(first) => {
                let mut octets = first.octets();
                octets[15] = number;
                Ipv6Addr::from(octets).into()
            }
        }
    }
}

impl Network {
    /// The fixed IPs of a port with that last number.
    pub fn fixed_ips(&self, number: u8) -> Vec<Value> {
        let subnets = self.subnets.iter();
        subnets
            .map(|subnet| match subnet.automatic {
                true => json!({"subnet_id": subnet.id}),
                false => json!({"subnet_id": subnet.id, "ip_address": subnet.address(number)}),
            })
            .collect()
    }

    /// What a VM needs to know of its port in this network.
    pub fn interface(&self, port: &Value, setting: Setting) -> Result<Interface> {
        let tag = port["segmentation_id"].as_u64();
        let mut addresses = Vec::new();
        for fixed in port["fixed_ips"].as_array().into_iter().flatten() {
            addresses.push(text(fixed, "ip_address")?.parse()?);
        }
        let ip4 = addresses.iter().find_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let ip6 = addresses.iter().find_map(|ip| match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(*ip),
        });
        let gateways = self.subnets.iter().filter(|_| self.routed);
        Ok(Interface {
            mac: text(port, "mac_address")?,
            ip: ip4.context("the port has no IPv4 address")?,
            prefix: PREFIX,
            ip6,
            gateways: gateways.filter_map(|subnet| subnet.gateway).collect(),
            mtu: self.mtu,
            setting,
            tag: u16::try_from(tag.context("the port has no segmentation_id")?)?,
        })
    }
}

impl Site {
    /// Creates a network with the subnet 10.0.0.0/24 and no way out.
    pub fn add_network(&mut self, name: &str) -> Result<&Network> {
        let subnet = json!({"ip_version": 4, "cidr": format!("10.0.0.0/{PREFIX}")});
        self.add_network_with(name, &json!({}), &[subnet], false)
    }

    /// Creates a network with the subnets 10.0.`number`.0/24 and fd00:`number`::/64,
    /// in which the first address is the gateway.
    pub fn add_dual_network(&mut self, name: &str, number: u8) -> Result<&Network> {
        let subnets = dual_subnets(number);
        self.add_network_with(name, &json!({}), &subnets, true)
    }

    /// Creates a network with these attributes and subnets; DHCP is off in those
    /// that do not say otherwise.
    pub fn add_network_with(
        &mut self,
        name: &str,
        attributes: &Value,
        subnets: &[Value],
        routed: bool,
    ) -> Result<&Network> {
        let api = &self.control.api;
        let mut wanted = attributes.clone();
        wanted["name"] = name.into();
        let network = neutron::create(api, "networks", &wanted)?;
        let id = neutron::id(&network)?;
        let mut made = Vec::new();
        for attributes in subnets {
            let mut wanted = attributes.clone();
            wanted["network_id"] = id.clone().into();
            wanted["name"] = format!("{name}-{}", attributes["ip_version"]).into();
            if wanted["enable_dhcp"].is_null() {
                wanted["enable_dhcp"] = false.into();
            }
            made.push(Subnet::parse(&neutron::create(api, "subnets", &wanted)?)?);
        }
        let number = |name: &str| network[name].as_u64().context("no VNI or no MTU");
        self.networks.push(Network {
            name: name.to_owned(),
            id,
            vni: u32::try_from(number("provider:segmentation_id")?)?,
            mtu: u16::try_from(number("mtu")?)?,
            routed,
            subnets: made,
        });
        self.network(name)
    }

    /// The network of that name.
    pub fn network(&self, name: &str) -> Result<&Network> {
        let mut networks = self.networks.iter();
        networks
            .find(|network| network.name == name)
            .with_context(|| format!("there is no network {name}"))
    }

    /// Creates a router with an interface in each subnet of these networks; its id.
    pub fn add_router(&self, name: &str, networks: &[&str]) -> Result<String> {
        let api = &self.control.api;
        let router = neutron::id(&neutron::create(api, "routers", &json!({"name": name}))?)?;
        for network in networks {
            for subnet in &self.network(network)?.subnets {
                let path = format!("/v2.0/routers/{router}/add_router_interface");
                api.put(&path, &json!({"subnet_id": subnet.id}))?;
            }
        }
        Ok(router)
    }

    /// The id of the router of that name.
    pub fn router(&self, name: &str) -> Result<String> {
        let path = format!("/v2.0/routers?name={name}");
        let routers = crate::site::list(self.control.api.get(&path)?, "routers")?;
        neutron::id(routers.first().context("there is no such router")?)
    }

    /// Takes a router's interface out of a subnet.
    pub fn leave_subnet(&self, router: &str, subnet: &str) -> Result<()> {
        let path = format!("/v2.0/routers/{router}/remove_router_interface");
        let api = &self.control.api;
        api.put(&path, &json!({"subnet_id": subnet})).map(drop)
    }

    /// Creates a security group, from which everything may be sent; its id.
    pub fn add_group(&self, name: &str) -> Result<String> {
        let api = &self.control.api;
        neutron::id(&neutron::create(
            api,
            "security-groups",
            &json!({"name": name}),
        )?)
    }

    /// Adds a rule to a group, for what comes in by IPv4 unless it says otherwise;
    /// its id.
    pub fn allow(&self, group: &str, rule: &Value) -> Result<String> {
        let mut wanted = json!({
            "security_group_id": group,
            "direction": "ingress",
            "ethertype": "IPv4",
        });
        crate::site::merge(&mut wanted, rule);
        let api = &self.control.api;
        neutron::id(&neutron::create(api, "security-group-rules", &wanted)?)
    }

    /// Lets everything in to a VM, from wherever: from VTEPs that are no NVEs, too.
    pub fn open(&self, vm: &str) -> Result<()> {
        let group = self.add_group(&format!("open-{vm}"))?;
        for ethertype in ["IPv4", "IPv6"] {
            self.allow(&group, &json!({"ethertype": ethertype}))?;
        }
        self.change_port(vm, &json!({"security_groups": [group]}))
            .map(drop)
    }

    /// Takes a rule away.
    pub fn disallow(&self, rule: &str) -> Result<()> {
        neutron::delete(&self.control.api, "security-group-rules", rule)
    }

    /// Changes the port of a VM.
    pub fn change_port(&self, vm: &str, attributes: &Value) -> Result<Value> {
        let port = &self.guest(vm)?.port;
        neutron::update(&self.control.api, "ports", port, attributes)
    }

    /// The port of a VM as Neutron shows it.
    pub fn port(&self, vm: &str) -> Result<Value> {
        neutron::show(&self.control.api, "ports", &self.guest(vm)?.port)
    }

    /// Creates a QoS policy that limits a port each way, in kbit/s; its id.
    pub fn add_limits(&self, name: &str, egress: u64, ingress: u64) -> Result<String> {
        let api = &self.control.api;
        let policy = neutron::create(api, "qos/policies", &json!({"name": name}))?;
        let policy = neutron::id(&policy)?;
        let rules = format!("qos/policies/{policy}/bandwidth_limit_rules");
        for (direction, rate) in [("egress", egress), ("ingress", ingress)] {
            let rule = json!({"max_kbps": rate, "direction": direction});
            neutron::create(api, &rules, &rule)?;
        }
        Ok(policy)
    }

    /// Waits until the VM's port is in force on the hypervisor where it is.
    pub fn await_placed(&self, vm: &str) -> Result<()> {
        let guest = self.guest(vm)?;
        let host = self.lab.hypervisors.get(guest.host).context("no host")?;
        let api = &self.control.api;
        wait::until_true(&format!("{vm} on {}", host.name), PLACED, || {
            let placement = crate::site::list(api.get("/v1/placement")?, "placement")?;
            Ok(placement.iter().any(|vnic| {
                vnic["port_id"] == guest.port.as_str()
                    && vnic["host_name"] == host.name.as_str()
                    && vnic["progress"] == "in_force"
            }))
        })
    }

    /// Frames that both NVEs have dropped for that reason.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let nves = self.nves()?;
        ensure!(!nves.is_empty(), "there is no NVE");
        let count = |nve: &Value| nve["drops"][reason].as_u64().unwrap_or_default();
        Ok(nves.iter().map(count).sum())
    }
}

/// The subnets of a network with that number, without DHCP.
pub fn dual_subnets(number: u8) -> [Value; 2] {
    [
        json!({"ip_version": 4, "cidr": format!("10.0.{number}.0/{PREFIX}")}),
        json!({"ip_version": 6, "cidr": format!("fd00:{number}::/64")}),
    ]
}

/// Waits until traffic obeys a request that was just answered; fails when that
/// takes longer than [`OBEDIENCE`].
pub fn obeys(what: &str, obeyed: impl FnMut() -> Result<bool>) -> Result<()> {
    obeys_since(Instant::now(), what, obeyed)
}

/// [`obeys`] for a request that was answered at that time.
fn obeys_since(answered: Instant, what: &str, obeyed: impl FnMut() -> Result<bool>) -> Result<()> {
    let left = OBEDIENCE.saturating_sub(answered.elapsed());
    wait::until_true(what, left, obeyed)?;
    println!("  {what}: obeyed");
    Ok(())
}

/// [`obeys`] for several attempts, side by side. Datagrams and raw packets may be
/// taken for those of another attempt: attempts that expect such to pass, and are
/// alike but for their senders, do not go here.
pub fn all_obey<F>(attempts: impl IntoIterator<Item = (String, F)>) -> Result<()>
where
    F: FnMut() -> Result<bool> + Send,
{
    all_obey_since(Instant::now(), attempts)
}

/// [`all_obey`] for a request that was answered at that time.
pub fn all_obey_since<F>(
    answered: Instant,
    attempts: impl IntoIterator<Item = (String, F)>,
) -> Result<()>
where
    F: FnMut() -> Result<bool> + Send,
{
    thread::scope(|scope| {
        let attempts = attempts.into_iter();
        let waits: Vec<_> = attempts
            .map(|(what, obeyed)| scope.spawn(move || obeys_since(answered, &what, obeyed)))
            .collect();
        waits.into_iter().try_for_each(|wait| match wait.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
