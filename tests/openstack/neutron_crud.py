"""Networks, subnets and ports of a running shim, through unmodified openstacksdk.

    python neutron_crud.py --url http://127.0.0.1:9696

Each check prints a line; the first that fails ends the run with a traceback and
status 1. Whatever the run makes it removes again, so it can run beside other users
of the same shim.
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
