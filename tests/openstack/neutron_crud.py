"""Resources of a running shim, through unmodified openstacksdk.

    python neutron_crud.py --url http://127.0.0.1:9696

Each check prints a line; the first that fails ends the run with a traceback and
status 1. Whatever the run makes it removes again, so it can run beside other users
of the same shim; only its project's default security group stays.
"""

import argparse
import contextlib
import sys
import uuid
from importlib import metadata

import openstack
from openstack import exceptions

RUN = uuid.uuid4().hex[:8]
CHECKS = []


def check(function):
    """Registers a function that takes the network proxy and an ExitStack."""
    CHECKS.append(function)
    return function


def connect(url):
    return openstack.connect(
        auth_type="none",
        network_endpoint_override=url,
    ).network


@contextlib.contextmanager
def refused(kind, *words):
    """Expects that exception with all the words in its text."""
    try:
        yield
    except kind as error:
        text = f"{error} {error.details}"
        missing = [word for word in words if word not in text]
        assert not missing, f"{missing} not in {text!r}"
        return
    raise AssertionError(f"no {kind.__name__}")


def name(suffix):
    return f"crud-{RUN}-{suffix}"


def make_network(net, stack, suffix, **attributes):
    network = net.create_network(name=name(suffix), **attributes)
    stack.callback(net.delete_network, network)
    return network


def make_subnet(net, stack, network, cidr, **attributes):
    subnet = net.create_subnet(
        network_id=network.id,
        cidr=cidr,
        ip_version=6 if ":" in cidr else 4,
        **attributes,
    )
    stack.callback(net.delete_subnet, subnet)
    return subnet


def make_port(net, stack, network, **attributes):
    port = net.create_port(network_id=network.id, **attributes)
    stack.callback(net.delete_port, port)
    return port


@check
def extensions_are_listed_and_found(net, stack):
    aliases = {extension.alias for extension in net.extensions()}
    assert {"provider", "binding", "pagination", "sorting"} <= aliases, aliases
    assert net.find_extension("sluice-port-segmentation-id")
    assert net.find_extension("quantum-teleport") is None


@check
def a_network_is_created_changed_and_deleted(net, stack):
    network = net.create_network(name=name("a"), description="first", mtu=1400)
    assert network.status == "ACTIVE" and network.is_admin_state_up
    assert network.mtu == 1400 and network.provider_network_type == "vxlan"
    assert network.provider_segmentation_id > 0
    assert network.subnet_ids == [] and network.created_at
    changed = net.update_network(network, name=name("b"), is_admin_state_up=False)
    assert changed.name == name("b") and not changed.is_admin_state_up
    assert changed.description == "first"
    assert changed.revision_number == 1
    assert net.get_network(network.id).name == name("b")
    assert net.find_network(name("b")).id == network.id
    net.delete_network(network, ignore_missing=False)
    assert net.find_network(network.id) is None
    with refused(exceptions.NotFoundException, network.id):
        net.delete_network(network.id, ignore_missing=False)


@check
def networks_are_filtered_sorted_and_paged(net, stack):
    made = [
        make_network(net, stack, f"page-{n}", description=f"page-{RUN}")
        for n in range(5)
    ]
    ours = {"description": f"page-{RUN}"}
    assert {n.id for n in net.networks(**ours)} == {n.id for n in made}
    assert [n.id for n in net.networks(name=made[2].name)] == [made[2].id]
    one_or_two = net.networks(name=[made[1].name, made[2].name], **ours)
    assert {n.id for n in one_or_two} == {made[1].id, made[2].id}
    assert list(net.networks(is_admin_state_up=False, **ours)) == []
    paged = [n.id for n in net.networks(limit=2, **ours)]
    assert paged == sorted(n.id for n in made), paged
    down = net.networks(sort_key="name", sort_dir="desc", limit=2, **ours)
    assert [n.name for n in down] == [n.name for n in reversed(made)]
    page = net.get("/networks", params={"limit": 2, **ours}).json()
    assert len(page["networks"]) == 2
    links = {link["rel"]: link["href"] for link in page["networks_links"]}
    assert set(links) == {"next"}, links
    second = net.get(links["next"]).json()
    links = {link["rel"]: link["href"] for link in second["networks_links"]}
    assert set(links) == {"next", "previous"}, links
    assert net.get(links["previous"]).json()["networks"] == page["networks"]
    only = net.get("/networks", params={"fields": ["id", "name"], **ours}).json()
    assert all(set(n) == {"id", "name"} for n in only["networks"])


@check
def a_subnet_is_created_changed_and_deleted(net, stack):
    network = make_network(net, stack, "subnets")
    subnet = make_subnet(
        net, stack, network, "10.7.0.0/24", dns_nameservers=["192.0.2.53"]
    )
    assert subnet.gateway_ip == "10.7.0.1" and subnet.is_dhcp_enabled
    assert subnet.allocation_pools == [{"start": "10.7.0.2", "end": "10.7.0.254"}]
    assert subnet.dns_nameservers == ["192.0.2.53"]
    assert net.get_network(network.id).subnet_ids == [subnet.id]
    changed = net.update_subnet(
        subnet,
        name=name("s"),
        gateway_ip=None,
        is_dhcp_enabled=False,
        host_routes=[{"destination": "10.8.0.0/16", "nexthop": "10.7.0.9"}],
    )
    assert changed.gateway_ip is None and not changed.is_dhcp_enabled
    assert changed.host_routes == [
        {"destination": "10.8.0.0/16", "nexthop": "10.7.0.9"}
    ]
    six = make_subnet(net, stack, network, "fd00:7::/64")
    assert [s.id for s in net.subnets(ip_version=6, network_id=network.id)] == [six.id]
    assert [s.id for s in net.subnets(cidr="10.7.0.0/24", name=name("s"))] == [
        subnet.id
    ]


@check
def a_port_gets_what_it_needs(net, stack):
    network = make_network(net, stack, "ports")
    subnet = make_subnet(net, stack, network, "10.7.0.0/24")
    port = make_port(net, stack, network, name=name("p"), device_id=f"vm-{RUN}")
    assert port.mac_address.startswith("fa:16:3e:"), port.mac_address
    assert port.fixed_ips == [{"subnet_id": subnet.id, "ip_address": "10.7.0.2"}]
    assert 1 <= port["segmentation_id"] <= 4094
    assert port.status == "DOWN" and port.binding_vif_type == "unbound"
    assert [p.id for p in net.ports(device_id=f"vm-{RUN}")] == [port.id]
    assert [p.id for p in net.ports(mac_address=port.mac_address.upper())] == [port.id]
    by_ip = net.ports(network_id=network.id, fixed_ips="ip_address=10.7.0.2")
    assert [p.id for p in by_ip] == [port.id]
    bound = net.update_port(port, binding_host_id=f"host-{RUN}", device_owner="compute:x")
    assert bound.binding_host_id == f"host-{RUN}" and bound.binding_vif_type == "other"
    assert bound["segmentation_id"] == port["segmentation_id"]
    moved = net.update_port(port, fixed_ips=[{"ip_address": "10.7.0.77"}])
    assert moved.fixed_ips == [{"subnet_id": subnet.id, "ip_address": "10.7.0.77"}]


@check
def segmentation_ids_are_unique_on_a_host(net, stack):
    network = make_network(net, stack, "tags")
    host = f"host-{RUN}-tags"
    first = make_port(net, stack, network, binding_host_id=host, segmentation_id=1234)
    assert first["segmentation_id"] == 1234
    with refused(exceptions.ConflictException, "1234", host):
        make_port(net, stack, network, binding_host_id=host, segmentation_id=1234)
    unbound = make_port(net, stack, network, segmentation_id=1234)
    with refused(exceptions.ConflictException, "1234"):
        net.update_port(unbound, binding_host_id=host)
    net.update_port(unbound.id, binding_host_id=host, segmentation_id=1235)
    with refused(exceptions.BadRequestException, "segmentation_id"):
        make_port(net, stack, network, segmentation_id=4095)


def make_router(net, stack, suffix, **attributes):
    router = net.create_router(name=name(suffix), **attributes)
    stack.callback(net.delete_router, router)
    return router


def make_group(net, stack, suffix, **attributes):
    group = net.create_security_group(name=name(suffix), **attributes)
    stack.callback(net.delete_security_group, group)
    return group


def make_policy(net, stack, suffix, **attributes):
    policy = net.create_qos_policy(name=name(suffix), **attributes)
    stack.callback(net.delete_qos_policy, policy)
    return policy


@check
def extensions_of_all_resources_are_listed(net, stack):
    aliases = {extension.alias for extension in net.extensions()}
    wanted = {
        "address-group",
        "allowed-address-pairs",
        "dns-integration",
        "extra_dhcp_opt",
        "extraroute-atomic",
        "port-security",
        "qos",
        "qos-pps",
        "router",
        "security-group",
        "stateful-security-group",
    }
    assert wanted <= aliases, wanted - aliases


@check
def a_router_has_interfaces(net, stack):
    network = make_network(net, stack, "routed")
    subnet = make_subnet(net, stack, network, "10.7.0.0/24")
    six = make_subnet(
        net, stack, network, "fd00:7::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac"
    )
    assert six.ipv6_ra_mode == "slaac"
    router = make_router(net, stack, "r", description="first")
    assert router.status == "ACTIVE" and router.is_admin_state_up
    assert router.external_gateway_info is None and router.routes == []
    changed = net.update_router(router, name=name("r2"), is_admin_state_up=False)
    assert changed.name == name("r2") and changed.description == "first"
    assert [r.id for r in net.routers(name=name("r2"), is_admin_state_up=False)] == [
        router.id
    ]
    for one in [subnet, six]:
        added = net.add_interface_to_router(router, subnet_id=one.id)
        assert added["subnet_ids"] == [one.id], added
        assert added["network_id"] == network.id
        stack.callback(net.remove_interface_from_router, router, subnet_id=one.id)
    interfaces = list(
        net.ports(device_id=router.id, device_owner="network:router_interface")
    )
    gateways = {ip["ip_address"] for port in interfaces for ip in port.fixed_ips}
    assert gateways == {"10.7.0.1", "fd00:7::1"}, gateways
    assert all(port["segmentation_id"] is None for port in interfaces)
    conflict = exceptions.ConflictException
    with refused(conflict, interfaces[0].id):
        net.delete_port(interfaces[0])
    with refused(conflict, router.id):
        net.delete_router(router)
    with refused(conflict, subnet.id):
        net.delete_subnet(subnet)
    with refused(exceptions.BadRequestException, "already has a port"):
        net.add_interface_to_router(router, subnet_id=subnet.id)
    overlapping = make_subnet(
        net, stack, make_network(net, stack, "overlapping"), "10.7.0.128/25"
    )
    with refused(exceptions.BadRequestException, "overlaps"):
        net.add_interface_to_router(router, subnet_id=overlapping.id)
    with refused(exceptions.BadRequestException, "external_gateway_info"):
        net.update_router(router, external_gateway_info={"network_id": network.id})


@check
def an_interface_by_port_goes_with_it(net, stack):
    network = make_network(net, stack, "by-port")
    make_subnet(net, stack, network, "10.7.0.0/24")
    router = make_router(net, stack, "by-port")
    port = net.create_port(
        network_id=network.id, fixed_ips=[{"ip_address": "10.7.0.254"}]
    )
    added = net.add_interface_to_router(router, port_id=port.id)
    assert added["port_id"] == port.id, added
    attached = net.get_port(port.id)
    assert attached.device_owner == "network:router_interface"
    assert attached.device_id == router.id and attached["segmentation_id"] is None
    net.remove_interface_from_router(router, port_id=port.id)
    assert net.find_port(port.id) is None


@check
def a_router_has_static_routes(net, stack):
    network = make_network(net, stack, "routes")
    subnet = make_subnet(net, stack, network, "10.7.0.0/24")
    router = make_router(net, stack, "routes")
    net.add_interface_to_router(router, subnet_id=subnet.id)
    stack.callback(net.remove_interface_from_router, router, subnet_id=subnet.id)
    one = {"destination": "192.168.0.0/16", "nexthop": "10.7.0.9"}
    two = {"destination": "172.16.0.0/12", "nexthop": "10.7.0.9"}
    assert net.update_router(router, routes=[one]).routes == [one]
    body = lambda routes: {"router": {"routes": routes}}
    assert net.add_extra_routes_to_router(router, body([two])).routes == [one, two]
    with refused(exceptions.ConflictException, "routes"):
        net.remove_interface_from_router(router, subnet_id=subnet.id)
    assert net.remove_extra_routes_from_router(router, body([one])).routes == [two]
    with refused(exceptions.BadRequestException, "not connected"):
        net.update_router(router, routes=[{**one, "nexthop": "10.9.0.9"}])
    assert net.update_router(router, routes=[]).routes == []


@check
def a_security_group_has_rules(net, stack):
    group = make_group(net, stack, "web", description="d")
    assert group.stateful and len(group.security_group_rules) == 2
    allow = dict(security_group_id=group.id, direction="ingress", protocol="tcp")
    rule = net.create_security_group_rule(
        port_range_min=80, port_range_max=81, remote_ip_prefix="10.0.0.0/8", **allow
    )
    assert rule.ether_type == "IPv4" and rule.protocol == "tcp"
    assert (rule.port_range_min, rule.port_range_max) == (80, 81)
    ping = net.create_security_group_rule(
        security_group_id=group.id,
        direction="ingress",
        ether_type="IPv6",
        protocol="icmp",
        remote_group_id=group.id,
    )
    assert ping.protocol == "ipv6-icmp" and ping.remote_group_id == group.id
    shown = {r["id"] for r in net.get_security_group(group.id).security_group_rules}
    assert {rule.id, ping.id} <= shown and len(shown) == 4
    listed = net.security_group_rules(security_group_id=group.id, direction="ingress")
    assert {r.id for r in listed} == {rule.id, ping.id}
    with refused(exceptions.ConflictException, rule.id):
        net.create_security_group_rule(
            port_range_min=80, port_range_max=81, remote_ip_prefix="10.0.0.0/8", **allow
        )
    bad = exceptions.BadRequestException
    with refused(bad, "port_range_min must be"):
        net.create_security_group_rule(port_range_min=9, port_range_max=8, **allow)
    with refused(bad, "ethertype"):
        net.create_security_group_rule(remote_ip_prefix="fd00::/8", **allow)
    with refused(bad, "not supported"):
        net.create_security_group_rule(**{**allow, "protocol": "tcpp"})
    net.delete_security_group_rule(rule, ignore_missing=False)
    renamed = net.update_security_group(group, name=name("web2"), stateful=False)
    assert renamed.name == name("web2") and not renamed.stateful
    assert [g.id for g in net.security_groups(name=name("web2"))] == [group.id]
    net.set_tags(group, ["red"])
    assert [g.id for g in net.security_groups(tags="red", name=name("web2"))] == [group.id]
    many = [{**allow, "port_range_min": n, "port_range_max": n} for n in (22, 443)]
    assert len(list(net.create_security_group_rules(many))) == 2


@check
def ports_are_in_groups_and_the_default_group_stays(net, stack):
    network = make_network(net, stack, "secured")
    group = make_group(net, stack, "members")
    port = make_port(net, stack, network)
    (default,) = port.security_group_ids
    assert net.get_security_group(default).name == "default"
    assert port.is_port_security_enabled
    conflict = exceptions.ConflictException
    with refused(conflict, default):
        net.delete_security_group(default)
    port = net.update_port(port, security_groups=[group.id])
    assert port.security_group_ids == [group.id]
    assert [p.id for p in net.ports(security_group_ids=[group.id])] == [port.id]
    with refused(conflict, group.id):
        net.delete_security_group(group)
    with refused(conflict, "security group"):
        net.update_port(port, is_port_security_enabled=False)
    port = net.update_port(port, is_port_security_enabled=False, security_groups=[])
    assert not port.is_port_security_enabled and port.security_group_ids == []
    with refused(exceptions.BadRequestException, "Port security must be enabled"):
        net.update_port(port, security_groups=[group.id])
    with refused(exceptions.NotFoundException):
        make_port(net, stack, network, security_groups=[str(uuid.uuid4())])
    plain = make_network(net, stack, "open", is_port_security_enabled=False)
    assert not make_port(net, stack, plain).is_port_security_enabled


@check
def ports_have_address_pairs_dhcp_options_and_names(net, stack):
    network = make_network(net, stack, "pairs", dns_domain="example.org.")
    make_subnet(net, stack, network, "10.7.0.0/24")
    pair = {"ip_address": "10.7.0.99", "mac_address": "02:00:00:00:00:99"}
    port = make_port(
        net,
        stack,
        network,
        allowed_address_pairs=[pair, {"ip_address": "10.9.0.0/16"}],
        extra_dhcp_opts=[{"opt_name": "mtu", "opt_value": "1400"}],
        dns_name="vm-1",
    )
    own = {"ip_address": "10.9.0.0/16", "mac_address": port.mac_address}
    assert port.allowed_address_pairs == [pair, own]
    assert port.extra_dhcp_opts == [
        {"opt_name": "mtu", "opt_value": "1400", "ip_version": 4}
    ]
    assert port.dns_assignment[0]["fqdn"] == "vm-1.example.org."
    port = net.update_port(
        port,
        allowed_address_pairs=[],
        extra_dhcp_opts=[
            {"opt_name": "mtu", "opt_value": None},
            {"opt_name": "66", "opt_value": "192.0.2.1"},
        ],
    )
    assert port.allowed_address_pairs == []
    assert [o["opt_name"] for o in port.extra_dhcp_opts] == ["66"]
    with refused(exceptions.BadRequestException, "warp-drive"):
        option = {"opt_name": "warp-drive", "opt_value": "1"}
        net.update_port(port, extra_dhcp_opts=[option])


@check
def an_address_group_grows_and_shrinks(net, stack):
    group = net.create_address_group(name=name("addresses"), addresses=["10.1.0.0/16"])
    stack.callback(net.delete_address_group, group)
    grown = net.add_addresses_to_address_group(group, ["10.2.0.0/16", "fd00::/64"])
    assert grown.addresses == ["10.1.0.0/16", "10.2.0.0/16", "fd00::/64"]
    shrunk = net.remove_addresses_from_address_group(group, ["10.1.0.0/16"])
    assert shrunk.addresses == ["10.2.0.0/16", "fd00::/64"]
    assert net.update_address_group(group, description="d").description == "d"
    assert [g.id for g in net.address_groups(name=group.name)] == [group.id]
    with refused(exceptions.BadRequestException, "10.2.0.0/16"):
        net.add_addresses_to_address_group(group, ["10.2.0.0/16"])
    with refused(exceptions.NotFoundException, "10.3.0.0/16"):
        net.remove_addresses_from_address_group(group, ["10.3.0.0/16"])
    security = make_group(net, stack, "addresses")
    rule = net.create_security_group_rule(
        security_group_id=security.id,
        direction="egress",
        remote_address_group_id=group.id,
    )
    assert rule.remote_address_group_id == group.id
    with refused(exceptions.ConflictException, group.id):
        net.delete_address_group(group)


@check
def a_qos_policy_has_rules_and_users(net, stack):
    policy = make_policy(net, stack, "gold", description="d")
    assert not policy.is_shared and not policy.is_default and policy.rules == []
    limit = net.create_qos_bandwidth_limit_rule(policy, max_kbps=1000)
    assert (limit.max_kbps, limit.max_burst_kbps, limit.direction) == (1000, 0, "egress")
    with refused(exceptions.ConflictException, limit.id):
        net.create_qos_bandwidth_limit_rule(policy, max_kbps=2000)
    changed = net.update_qos_bandwidth_limit_rule(limit, policy, max_burst_kbps=80)
    assert (changed.max_kbps, changed.max_burst_kbps) == (1000, 80)
    rate = net.create_qos_packet_rate_limit_rule(policy, max_kpps=10, direction="ingress")
    assert (rate.max_kpps, rate.direction) == (10, "ingress")
    mark = net.create_qos_dscp_marking_rule(policy, dscp_mark=26)
    assert net.get_qos_dscp_marking_rule(mark.id, policy).dscp_mark == 26
    with refused(exceptions.BadRequestException, "dscp_mark"):
        net.update_qos_dscp_marking_rule(mark, policy, dscp_mark=27)
    with refused(exceptions.BadRequestException, "not supported"):
        net.create_qos_minimum_bandwidth_rule(policy, min_kbps=1)
    listed = [list(f(policy)) for f in (
        net.qos_bandwidth_limit_rules,
        net.qos_packet_rate_limit_rules,
        net.qos_dscp_marking_rules,
        net.qos_minimum_bandwidth_rules,
    )]
    assert [len(rules) for rules in listed] == [1, 1, 1, 0], listed
    types = {rule["type"] for rule in net.get_qos_policy(policy.id).rules}
    assert types == {"bandwidth_limit", "packet_rate_limit", "dscp_marking"}, types
    assert {t.type for t in net.qos_rule_types()} == types
    assert net.get_qos_rule_type("dscp_marking").drivers[0]["name"] == "sluice"
    net.delete_qos_dscp_marking_rule(mark, policy, ignore_missing=False)
    network = make_network(net, stack, "qos", qos_policy_id=policy.id)
    port = make_port(net, stack, network)
    assert port.qos_policy_id is None and port.qos_network_policy_id == policy.id
    with refused(exceptions.ConflictException, network.id):
        net.delete_qos_policy(policy)
    assert net.update_port(port, qos_policy_id=policy.id).qos_policy_id == policy.id
    assert net.update_port(port, qos_policy_id=None).qos_policy_id is None
    assert net.update_network(network, qos_policy_id=None).qos_policy_id is None
    renamed = net.update_qos_policy(policy, name=name("silver"))
    assert [p.id for p in net.qos_policies(name=name("silver"))] == [renamed.id]
    net.set_tags(policy, ["red"])
    assert [p.id for p in net.qos_policies(tags="red", name=name("silver"))] == [policy.id]


@check
def tags_are_set_and_filtered(net, stack):
    network = make_network(net, stack, "labels")
    net.set_tags(network, [f"red-{RUN}", f"blue-{RUN}"])
    assert sorted(net.get_network(network.id).tags) == [f"blue-{RUN}", f"red-{RUN}"]
    network.add_tag(net, f"green-{RUN}")
    assert [n.id for n in net.networks(tags=f"red-{RUN},green-{RUN}")] == [network.id]
    assert [n.id for n in net.networks(any_tags=f"red-{RUN},x")] == [network.id]
    network.remove_tag(net, f"green-{RUN}")
    assert list(net.networks(tags=f"green-{RUN}")) == []


@check
def many_are_created_at_once_or_none(net, stack):
    network = make_network(net, stack, "bulk")
    ports = list(
        net.create_ports([{"network_id": network.id, "name": name(n)} for n in "xyz"])
    )
    assert [p.name for p in ports] == [name(n) for n in "xyz"]
    assert len({p["segmentation_id"] for p in ports}) == 3
    for port in ports:
        stack.callback(net.delete_port, port)
    twice = {"network_id": network.id, "mac_address": "02:00:00:00:00:01"}
    with refused(exceptions.ConflictException, "02:00:00:00:00:01"):
        list(net.create_ports([twice, twice]))
    assert len(list(net.ports(network_id=network.id))) == 3


@check
def conflicts_are_conflicts(net, stack):
    network = make_network(net, stack, "conflicts")
    subnet = make_subnet(net, stack, network, "10.7.0.0/24")
    port = make_port(net, stack, network, fixed_ips=[{"ip_address": "10.7.0.9"}])
    conflict = exceptions.ConflictException
    with refused(conflict, "10.7.0.9", "already allocated"):
        make_port(net, stack, network, fixed_ips=[{"ip_address": "10.7.0.9"}])
    with refused(conflict, port.mac_address):
        make_port(net, stack, network, mac_address=port.mac_address)
    with refused(conflict, network.id, port.id):
        net.delete_network(network)
    with refused(conflict, subnet.id):
        net.delete_subnet(subnet)
    with refused(conflict, str(network.provider_segmentation_id)):
        make_network(
            net,
            stack,
            "same-vni",
            provider_network_type="vxlan",
            provider_segmentation_id=network.provider_segmentation_id,
        )


@check
def bad_requests_are_bad_requests(net, stack):
    network = make_network(net, stack, "bad")
    make_subnet(net, stack, network, "10.7.0.0/24")
    bad = exceptions.BadRequestException
    with refused(bad, "Unrecognized attribute(s) 'colour'"):
        net.create_network(name=name("x"), colour="red")
    with refused(bad, "overlaps"):
        make_subnet(net, stack, network, "10.7.0.128/25")
    with refused(bad, "cidr"):
        make_subnet(net, stack, network, "10.7.0.0/99")
    with refused(bad, "maximum is"):
        make_network(net, stack, "x", mtu=9000)
    with refused(bad, "read-only attribute network_id"):
        port = make_port(net, stack, network)
        exceptions.raise_from_response(
            net.put(f"/ports/{port.id}", json={"port": {"network_id": network.id}})
        )
    with refused(bad, "10.9.0.1"):
        make_port(net, stack, network, fixed_ips=[{"ip_address": "10.9.0.1"}])
    with refused(bad, "filtering"):
        exceptions.raise_from_response(net.get("/networks", params={"colour": "red"}))
    missing = str(uuid.uuid4())
    with refused(exceptions.NotFoundException, missing):
        net.get_port(missing)
    with refused(exceptions.NotFoundException, missing):
        net.create_port(network_id=missing)


@check
def if_match_guards_a_revision(net, stack):
    network = make_network(net, stack, "revision")
    url = f"/networks/{network.id}"
    at = lambda n: {"If-Match": f"revision_number={n}"}
    change = {"network": {"name": name("renamed")}}
    assert net.put(url, json=change, headers=at(0)).status_code == 200
    stale = net.put(url, json={"network": {"name": "x"}}, headers=at(0))
    with refused(exceptions.PreconditionFailedException, "revision"):
        exceptions.raise_from_response(stale)
    assert net.delete(url, headers=at(0)).status_code == 412
    assert net.put(url, json=change, headers=at(1)).json()["network"][
        "revision_number"
    ] == 1, "a change of nothing is no revision"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="root of the shim's REST API")
    net = connect(parser.parse_args().url)
    for function in CHECKS:
        with contextlib.ExitStack() as stack:
            function(net, stack)
        print(f"ok  {function.__name__}", flush=True)
    left = [n.name for n in net.networks() if n.name.startswith(f"crud-{RUN}")]
    assert not left, left
    print(f"{len(CHECKS)} checks, openstacksdk {metadata.version('openstacksdk')}")


if __name__ == "__main__":
    sys.exit(main())
