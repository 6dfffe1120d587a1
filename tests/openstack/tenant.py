"""Steps of a tenant, through unmodified openstacksdk.

    python tenant.py --url http://127.0.0.1:9696

Takes a step a line, and prints an id for each, with the time at which the last call
had returned, in seconds since 1970:

    route SUBNET...
    protect PORT
    allow GROUP PROTOCOL PORT
    forbid GROUP
    limit PORT KBPS
"""

import argparse
import sys
import time

import openstack


def route(net, *subnets):
    """Makes a router with an interface in each subnet."""
    router = net.create_router(name="tenant")
    for subnet in subnets:
        net.add_interface_to_router(router, subnet_id=subnet)
    return router.id


def protect(net, port):
    """Puts the port in a new security group, and in no other."""
    group = net.create_security_group(name="tenant")
    net.update_port(port, security_group_ids=[group.id])
    return group.id


def allow(net, group, protocol, port):
    """Lets a protocol in to one port, in both families."""
    for ether_type in ("IPv4", "IPv6"):
        rule = net.create_security_group_rule(
            security_group_id=group,
            direction="ingress",
            ether_type=ether_type,
            protocol=protocol,
            port_range_min=int(port),
            port_range_max=int(port),
        )
    return rule.id


def forbid(net, group):
    """Takes away what the group lets in."""
    rules = net.security_group_rules(security_group_id=group, direction="ingress")
    for rule in list(rules):
        net.delete_security_group_rule(rule, ignore_missing=False)
    return group


def limit(net, port, kbps):
    """Limits the port's bandwidth each way."""
    policy = net.create_qos_policy(name="tenant")
    for direction in ("egress", "ingress"):
        net.create_qos_bandwidth_limit_rule(
            policy, max_kbps=int(kbps), direction=direction
        )
    net.update_port(port, qos_policy_id=policy.id)
    return policy.id


STEPS = {step.__name__: step for step in (route, protect, allow, forbid, limit)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="root of the shim's REST API")
    given = parser.parse_args()
    net = openstack.connect(
        auth_type="none", network_endpoint_override=given.url
    ).network
    for line in sys.stdin:
        step, *arguments = line.split()
        made = STEPS[step](net, *arguments)
        print(made, time.time(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
