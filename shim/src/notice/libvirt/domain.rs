//! What libvirt's descriptions (XML) say of a VM, in the words of TABLE II.
//!
//! | field | is |
//! |---|---|
//! | `vnic_name` | the device's alias, or `net` and its number |
//! | `vnic_uuid` | made of the VM's UUID and the MAC address: the same on every host, on or off |
//! | `pg_name` | the port group; with the network before it, `network/group`, if that is not ours; without one, the network or bridge itself |
//! | `pg_uuid` | made of `pg_name` |
//! | `port_segmentation_id` | its VLAN tag; 0 for a trunk, or if there is none |
//! | `ip_list`, `ipv6_list` | the addresses that Nova wrote down for that port, if it did |

use std::collections::BTreeMap;
use std::net::IpAddr;

use nve_protocol::Mac;
use roxmltree::{Document, Node, ParsingOptions};
use uuid::Uuid;

use crate::events::types::{IpEntry, Ipv6Entry, VmState, VmStatus, Vnic};
use crate::notice::ledger::derived_uuid;

/// Longest description, bytes: as long as libvirt's protocol lets a text be.
const LONGEST: usize = 4 << 20;
/// Most nodes of one. A network of some 30,000 port groups has that many.
const NODES: usize = 300_000;
/// Most declarations of namespaces: each element with one copies those around it.
const NAMESPACES: usize = 64;
/// Most attributes of an element: each is compared with those before it.
const ATTRIBUTES: usize = 1000;
/// Most vNICs of a VM.
const VNICS: usize = 256;
/// Most addresses of a vNIC.
const ADDRESSES: usize = 256;
/// Longest name of anything, bytes.
pub(super) const LONGEST_NAME: usize = 255;

/// What cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("libvirt's description of {of} is malformed: {reason}")]
pub(super) struct Malformed {
    of: String,
    reason: String,
}

impl Malformed {
    fn new(of: &str, reason: impl ToString) -> Self {
        Malformed {
            of: of.to_owned(),
            reason: sluice_libvirt::one_line(&reason.to_string()),
        }
    }
}

/// VLAN tags of the port groups of a network; none for a trunk or an untagged one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortGroups {
    /// By name.
    pub tags: BTreeMap<String, Option<u16>>,
    /// The one for interfaces that name none.
    pub default: Option<String>,
}

/// The networks of a host.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    /// Name of the one whose port groups those of ports are. A port group of that name
    /// elsewhere is none of a port.
    pub ours: String,
    /// Their port groups, by name, as far as they are known.
    pub known: BTreeMap<String, PortGroups>,
}

impl Networks {
    pub(super) fn new(ours: &str) -> Self {
        Networks {
            ours: ours.to_owned(),
            known: BTreeMap::new(),
        }
    }
}

/// A host, as TABLE II has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostName {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
}

/// The UUID of the host of that name, from its capabilities; made of its name if it has
/// none there.
pub(super) fn host_uuid(name: &str, capabilities: &str) -> Result<Uuid, Malformed> {
    let of = format!("host {name:?}");
    let document = parse(&of, capabilities)?;
    let host = child(document.root_element(), "host");
    match host.and_then(|host| child(host, "uuid")?.text()) {
        None => Ok(derived_uuid("host", name)),
        Some(text) => Uuid::try_parse(text.trim()).map_err(|error| Malformed::new(&of, error)),
    }
}

/// The port groups of the network that `xml` describes.
pub(super) fn port_groups(network: &str, xml: &str) -> Result<PortGroups, Malformed> {
    let document = parse(&format!("network {network:?}"), xml)?;
    let mut groups = PortGroups::default();
    for group in children(document.root_element(), "portgroup") {
        let name = group.attribute("name").unwrap_or_default().to_owned();
        if group.attribute("default") == Some("yes") {
            groups.default = Some(name.clone());
        }
        groups.tags.insert(name, tag(group));
    }
    Ok(groups)
}

/// The networks that have to be known to tell where the interfaces of a domain are. One
/// that is plugged in has its own tag, and needs none: where each question costs time,
/// while a VM arrives, there is none to ask.
pub(super) fn networks_of(domain: &str) -> Result<Vec<String>, Malformed> {
    let document = parse("a domain", domain)?;
    let mut names: Vec<String> = interfaces(&document)
        .filter_map(|interface| {
            let source = child(interface, "source")?;
            let is_told = source.has_attribute("portgroup") && tag(interface).is_some();
            source.attribute("network").filter(|_| !is_told)
        })
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The port groups of that network that interfaces of a domain are in.
pub(super) fn groups_of(domain: &str, network: &str) -> Result<Vec<String>, Malformed> {
    let document = parse("a domain", domain)?;
    let groups = interfaces(&document)
        .filter_map(|interface| child(interface, "source"))
        .filter(|source| source.attribute("network") == Some(network))
        .filter_map(|source| Some(source.attribute("portgroup")?.to_owned()));
    Ok(groups.collect())
}

/// The VM that `domain` is.
pub(super) fn vm(
    domain: &sluice_libvirt::Domain,
    host: &HostName,
    networks: &Networks,
) -> Result<VmState, Malformed> {
    let of = format!("domain {:?}", sluice_libvirt::one_line(&domain.name));
    let malformed = |reason: &str| Malformed::new(&of, reason);
    let document = parse(&of, &domain.xml)?;
    let addresses = addresses(&document);
    let mut vnic_list = Vec::new();
    for (number, interface) in interfaces(&document).enumerate() {
        let Some(mut vnic) = vnic(number, interface, domain.uuid, networks) else {
            continue;
        };
        let own = vnic.port_id().and_then(|port| addresses.get(&port));
        let own = own.map_or(&[][..], Vec::as_slice);
        if vnic_list.len() == VNICS || own.len() > ADDRESSES {
            return Err(malformed("it has too many vNICs or addresses"));
        }
        if vnic.vnic_name.len().max(vnic.pg_name.len()) > LONGEST_NAME {
            return Err(malformed("a name in it is too long"));
        }
        add(&mut vnic, own);
        vnic_list.push(vnic);
    }
    if domain.name.len() > LONGEST_NAME {
        return Err(malformed("its name is too long"));
    }
    Ok(VmState {
        vm_name: domain.name.clone(),
        vm_uuid: domain.uuid,
        vm_status: status(domain.status),
        host_name: host.name.clone(),
        host_uuid: host.uuid,
        vnic_list,
    })
}

/// One that is paused only while it migrates counts as running.
fn status(status: sluice_libvirt::Status) -> VmStatus {
    match status {
        sluice_libvirt::Status::Off => VmStatus::Stop,
        sluice_libvirt::Status::Running | sluice_libvirt::Status::Migrating => VmStatus::Running,
        sluice_libvirt::Status::Paused => VmStatus::Paused,
    }
}

/// Reads XML of a host, unless it would cost more than any sensible one.
fn parse<'a>(of: &str, xml: &'a str) -> Result<Document<'a>, Malformed> {
    if let Some(excess) = excess(xml) {
        return Err(Malformed::new(of, excess));
    }
    let options = ParsingOptions {
        nodes_limit: u32::try_from(NODES).unwrap_or(u32::MAX),
        ..ParsingOptions::default()
    };
    Document::parse_with_options(xml, options).map_err(|error| Malformed::new(of, error))
}

/// What there is too much of, seen without parsing.
fn excess(xml: &str) -> Option<&'static str> {
    let count = |byte| xml.bytes().filter(|b| *b == byte).count();
    // No tag has another `<` in it.
    let attributes = |tag: &str| {
        let values = tag.split('=').skip(1).map(str::trim_start);
        values
            .filter(|value| value.starts_with(['"', '\'']))
            .count()
    };
    if xml.len() > LONGEST {
        Some("it is too long")
    } else if count(b'<') > NODES || count(b'=') > NODES {
        Some("it has too many elements")
    } else if xml.matches("xmlns").count() > NAMESPACES {
        Some("it has too many namespaces")
    } else if xml.split('<').any(|tag| attributes(tag) > ATTRIBUTES) {
        Some("an element has too many attributes")
    } else {
        None
    }
}

fn interfaces<'a>(document: &'a Document<'a>) -> impl Iterator<Item = Node<'a, 'a>> {
    let devices = child(document.root_element(), "devices");
    devices
        .into_iter()
        .flat_map(|devices| children(devices, "interface"))
}

/// An interface without a MAC address is none that frames come from.
fn vnic(number: usize, interface: Node, vm: Uuid, networks: &Networks) -> Option<Vnic> {
    let mac: Mac = child(interface, "mac")?
        .attribute("address")?
        .parse()
        .ok()?;
    let alias = child(interface, "alias").and_then(|alias| alias.attribute("name"));
    let place = place(interface, networks);
    Some(Vnic {
        vnic_name: alias.map_or_else(|| format!("net{number}"), str::to_owned),
        vnic_uuid: Uuid::new_v5(&vm, mac.to_string().as_bytes()),
        pg_uuid: derived_uuid("port-group", &place.0),
        pg_name: place.0,
        mac,
        port_segmentation_id: place.1.unwrap_or_default(),
        ip_list: Vec::new(),
        ipv6_list: Vec::new(),
    })
}

/// Name of the port group, and its tag.
fn place(interface: Node, networks: &Networks) -> (String, Option<u16>) {
    let source = child(interface, "source");
    let attribute = |name| source.and_then(|source| source.attribute(name));
    let own = tag(interface);
    let Some(network) = attribute("network") else {
        let bridge = attribute("bridge").or(attribute("dev"));
        return (of_no_port(bridge.unwrap_or_default()), own);
    };
    let known = networks.known.get(network);
    let default = known.and_then(|known| known.default.as_deref());
    let group = attribute("portgroup").or(default);
    let shared = group.and_then(|group| known?.tags.get(group).copied().flatten());
    let name = match group {
        Some(group) if network == networks.ours => group.to_owned(),
        Some(group) => format!("{network}/{group}"),
        None => of_no_port(network),
    };
    // What it is plugged into, while it runs, is its own.
    (name, own.or(shared))
}

/// The name of what is no port group, changed if it could be taken for a port's.
fn of_no_port(name: &str) -> String {
    let names_port = |(port, _)| Uuid::try_parse(port).is_ok();
    match name.rsplit_once('_').is_some_and(names_port) {
        true => format!("{name}/"),
        false => name.to_owned(),
    }
}

/// The one tag of an interface or a port group.
fn tag(of: Node) -> Option<u16> {
    let vlan = child(of, "vlan")?;
    let mut tags = children(vlan, "tag");
    let tag = tags.next()?.attribute("id")?.parse().ok()?;
    let is_access = vlan.attribute("trunk") != Some("yes") && tags.next().is_none();
    is_access.then_some(tag)
}

/// The addresses of ports, as Nova writes them into a domain's metadata:
/// `<port uuid="…"><ip address="…"/></port>`.
fn addresses(document: &Document) -> BTreeMap<Uuid, Vec<IpAddr>> {
    let metadata = child(document.root_element(), "metadata");
    let elements = metadata.into_iter().flat_map(|node| node.descendants());
    let mut addresses: BTreeMap<Uuid, Vec<IpAddr>> = BTreeMap::new();
    for node in elements.filter(|node| node.tag_name().name() == "port") {
        if let Some(Ok(port)) = node.attribute("uuid").map(Uuid::try_parse) {
            let own = children(node, "ip")
                .filter_map(|ip| ip.attribute("address")?.parse::<IpAddr>().ok());
            addresses.entry(port).or_default().extend(own);
        }
    }
    addresses
}

fn add(vnic: &mut Vnic, addresses: &[IpAddr]) {
    for ip in addresses {
        match *ip {
            IpAddr::V4(ip) => vnic.ip_list.push(IpEntry { ip }),
            IpAddr::V6(ipv6) => vnic.ipv6_list.push(Ipv6Entry { ipv6 }),
        }
    }
}

fn child<'a>(of: Node<'a, 'a>, name: &'static str) -> Option<Node<'a, 'a>> {
    children(of, name).next()
}

fn children<'a>(of: Node<'a, 'a>, name: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
    of.children()
        .filter(move |node| node.tag_name().name() == name)
}

#[cfg(test)]
mod tests {
    use sluice_libvirt::{Domain, Status};

    use super::*;

    const PORT: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn domain(interfaces: &str, metadata: &str) -> Domain {
        Domain {
            name: "web".into(),
            uuid: Uuid::from_u128(1),
            status: Status::Migrating,
            xml: format!(
                "<domain><name>web</name><metadata>{metadata}</metadata>\
                 <devices>{interfaces}</devices></domain>"
            ),
        }
    }

    fn read(domain: &Domain) -> VmState {
        try_read(domain).unwrap()
    }

    fn try_read(domain: &Domain) -> Result<VmState, Malformed> {
        let network = format!(
            "<network><name>sluice</name>\
             <portgroup name='{PORT}_101'><vlan><tag id='101'/></vlan></portgroup>\
             <portgroup name='trunk' default='yes'><vlan trunk='yes'><tag id='1'/></vlan></portgroup>\
             </network>"
        );
        let groups = port_groups("sluice", &network).unwrap();
        let host = HostName {
            name: "hv".into(),
            uuid: Uuid::from_u128(2),
        };
        let mut networks = Networks::new("sluice");
        networks.known.insert("other".to_owned(), groups.clone());
        networks.known.insert("sluice".to_owned(), groups);
        vm(domain, &host, &networks)
    }

    #[test]
    fn a_domain_is_a_vm_on_and_off() {
        let mac = "<mac address='fa:16:3e:00:00:01'/>";
        let off = format!(
            "<interface type='network'>{mac}<source network='sluice' portgroup='{PORT}_101'/></interface>"
        );
        let on = format!(
            "<interface type='bridge'>{mac}<source network='sluice' portgroup='{PORT}_101' \
             bridge='hv'/><vlan><tag id='101'/></vlan><alias name='net0'/></interface>"
        );
        let nova = format!(
            "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:ports>\
             <nova:port uuid='{PORT}'><nova:ip type='fixed' address='10.0.0.4' ipVersion='4'/>\
             <nova:ip type='fixed' address='fd00::4' ipVersion='6'/></nova:port>\
             </nova:ports></nova:instance>"
        );
        let (off, on) = (read(&domain(&off, &nova)), read(&domain(&on, &nova)));
        assert_eq!(off, on);
        assert_eq!(on.vm_status, VmStatus::Running);
        assert_eq!((&*on.host_name, &*on.vm_name), ("hv", "web"));
        let vnic = &on.vnic_list[0];
        assert_eq!(vnic.port_id(), Uuid::try_parse(PORT).ok());
        assert_eq!((&*vnic.vnic_name, vnic.port_segmentation_id), ("net0", 101));
        assert_eq!(vnic.mac.to_string(), "fa:16:3e:00:00:01");
        assert_eq!(vnic.ip_list[0].ip.to_string(), "10.0.0.4");
        assert_eq!(vnic.ipv6_list[0].ipv6.to_string(), "fd00::4");
    }

    #[test]
    fn interfaces_of_other_kinds_are_no_neutron_ports() {
        let vm = read(&domain(
            "<interface type='network'><mac address='fa:16:3e:00:00:01'/>\
             <source network='sluice'/></interface>\
             <interface type='bridge'><mac address='fa:16:3e:00:00:02'/>\
             <source bridge='br0'/></interface>\
             <interface type='network'><mac address='fa:16:3e:00:00:03'/>\
             <source network='unknown'/></interface>\
             <interface type='user'/>",
            "",
        ));
        let places: Vec<(&str, u16)> = vm
            .vnic_list
            .iter()
            .map(|vnic| (&*vnic.pg_name, vnic.port_segmentation_id))
            .collect();
        assert_eq!(places, [("trunk", 0), ("br0", 0), ("unknown", 0)]);
        assert!(vm.vnic_list.iter().all(|vnic| vnic.port_id().is_none()));
        let asked = |source: &str, tag: &str| {
            let interface = format!("<interface><source network='n' {source}/>{tag}</interface>");
            networks_of(&domain(&interface, "").xml).unwrap()
        };
        let tag = "<vlan><tag id='7'/></vlan>";
        assert_eq!(asked("", ""), ["n"]);
        assert_eq!(asked("", tag), ["n"]);
        assert_eq!(asked("portgroup='p'", ""), ["n"]);
        assert!(asked("portgroup='p'", tag).is_empty());
    }

    #[test]
    fn what_only_has_the_name_of_a_port_group_is_none_of_a_port() {
        let tag = "<vlan><tag id='101'/></vlan>";
        let mac = "<mac address='fa:16:3e:00:00:01'/>";
        for (source, name) in [
            (format!("network='other' portgroup='{PORT}_101'"), "other/"),
            (format!("network='gone' portgroup='{PORT}_101'"), "gone/"),
            (format!("network='{PORT}_101'"), PORT),
            (format!("bridge='{PORT}_101'"), PORT),
            (format!("dev='{PORT}_101'"), PORT),
        ] {
            let interface = format!("<interface>{mac}<source {source}/>{tag}</interface>");
            let vm = read(&domain(&interface, ""));
            let vnic = &vm.vnic_list[0];
            assert_eq!(vnic.port_id(), None, "{source}");
            assert_eq!(vnic.port_segmentation_id, 101, "{source}");
            assert!(vnic.pg_name.starts_with(name), "{}", vnic.pg_name);
        }
        let default = read(&domain(
            &format!("<interface>{mac}<source network='other'/></interface>"),
            "",
        ));
        assert_eq!(default.vnic_list[0].pg_name, "other/trunk");
    }

    #[test]
    fn what_would_cost_too_much_is_not_read() {
        let begun = std::time::Instant::now();
        let many = |count: usize, one: &dyn Fn(usize) -> String| -> String {
            (0..count).map(one).collect()
        };
        let nested = many(9000, &|n| format!("<a xmlns:n{n}='u'>"));
        let vnics = many(VNICS + 1, &|n| {
            format!(
                "<interface><mac address='02:00:00:00:{:02x}:{:02x}'/></interface>",
                n >> 8,
                n & 255
            )
        });
        let long = "x".repeat(LONGEST_NAME + 1);
        let addresses = many(ADDRESSES + 1, &|_| "<ip address='10.0.0.1'/>".into());
        let vnic = format!(
            "<interface><mac address='02:00:00:00:00:01'/>\
             <source network='sluice' portgroup='{PORT}_101'/></interface>"
        );
        for (what, interfaces, metadata) in [
            ("long", "", "x".repeat(LONGEST)),
            ("elements", "", "<a/>".repeat(NODES)),
            ("namespaces", "", nested),
            (
                "attributes",
                "",
                format!("<a {}/>", many(2000, &|n| format!("a{n} = '' "))),
            ),
            ("vNICs", &*vnics, String::new()),
            (
                "addresses",
                &*vnic,
                format!("<port uuid='{PORT}'>{addresses}</port>"),
            ),
            (
                "name",
                &*format!(
                    "<interface><mac address='02:00:00:00:00:01'/>\
              <source bridge='{long}'/></interface>"
                ),
                String::new(),
            ),
        ] {
            let refused = try_read(&domain(interfaces, &metadata)).unwrap_err();
            assert!(refused.reason.contains(what), "{what}: {refused}");
        }
        let seconds = begun.elapsed().as_secs();
        assert!(seconds < 10, "{seconds} s");
        // What a host writes is not logged as it is.
        let lines = try_read(&domain(&format!("&{};", "\n".repeat(5000)), "")).unwrap_err();
        assert!(!lines.to_string().contains('\n') && lines.to_string().len() < 1000);
    }

    #[test]
    fn what_is_no_description_is_refused() {
        assert!(port_groups("n", "<network").is_err());
        let uuid = |text: &str| {
            let capabilities = format!("<capabilities><host>{text}</host></capabilities>");
            host_uuid("hv", &capabilities)
        };
        assert!(uuid("<uuid>x</uuid>").is_err());
        assert_eq!(
            uuid(&format!("<uuid>{PORT}</uuid>")).ok(),
            Uuid::try_parse(PORT).ok()
        );
        assert_eq!(uuid(""), Ok(derived_uuid("host", "hv")));
        let mut broken = domain("", "");
        broken.xml = "<domain>&lol;".into();
        let host = HostName {
            name: "hv".into(),
            uuid: Uuid::nil(),
        };
        assert!(vm(&broken, &host, &Networks::new("sluice")).is_err());
        assert!(networks_of(&broken.xml).is_err());
        assert!(groups_of(&broken.xml, "sluice").is_err());
    }
}
