//! What a QoS policy does to a VAP.

use nve_protocol::{Limit, Qos, Vlan};

use crate::model::{Direction, QosAction, QosPolicy};

/// Limits and marking by a policy; `None` if it does nothing.
pub(super) fn limits(policy: &QosPolicy, vlan: Vlan) -> Option<Qos> {
    let nothing = Qos {
        vlan,
        egress: Limit::default(),
        ingress: Limit::default(),
        dscp: None,
    };
    let mut qos = nothing;
    for rule in &policy.rules {
        match rule.action {
            QosAction::BandwidthLimit {
                max_kbps,
                max_burst_kbps,
                direction,
            } => {
                let limit = limit_of(&mut qos, direction);
                limit.kbps = max_kbps;
                limit.burst_kbit = max_burst_kbps;
            }
            QosAction::PacketRateLimit {
                max_kpps,
                max_burst_kpps,
                direction,
            } => {
                let limit = limit_of(&mut qos, direction);
                limit.pps = max_kpps.saturating_mul(1000);
                limit.burst_packets = max_burst_kpps.saturating_mul(1000);
            }
            QosAction::DscpMarking { dscp_mark } => qos.dscp = Some(dscp_mark),
        }
    }
    (qos != nothing).then_some(qos)
}

fn limit_of(qos: &mut Qos, direction: Direction) -> &mut Limit {
    match direction {
        Direction::Ingress => &mut qos.ingress,
        Direction::Egress => &mut qos.egress,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::QosRule;

    fn policy(actions: &[QosAction]) -> QosPolicy {
        let rule = |action: &QosAction| QosRule {
            id: Uuid::nil(),
            action: *action,
        };
        QosPolicy {
            common: crate::compile::tests::common(Uuid::nil()),
            shared: false,
            is_default: false,
            rules: actions.iter().map(rule).collect(),
        }
    }

    #[test]
    fn both_directions_have_limits_of_their_own() {
        let vlan = Vlan::new(7).unwrap();
        let qos = limits(
            &policy(&[
                QosAction::BandwidthLimit {
                    max_kbps: 3000,
                    max_burst_kbps: 300,
                    direction: Direction::Egress,
                },
                QosAction::PacketRateLimit {
                    max_kpps: 2,
                    max_burst_kpps: 5_000_000,
                    direction: Direction::Ingress,
                },
                QosAction::DscpMarking { dscp_mark: 26 },
            ]),
            vlan,
        );
        let want = Qos {
            vlan,
            egress: Limit {
                kbps: 3000,
                burst_kbit: 300,
                ..Limit::default()
            },
            ingress: Limit {
                pps: 2000,
                burst_packets: u32::MAX,
                ..Limit::default()
            },
            dscp: Some(26),
        };
        assert_eq!(qos, Some(want));
    }

    #[test]
    fn a_policy_that_does_nothing_has_no_record() {
        assert_eq!(limits(&policy(&[]), Vlan::new(7).unwrap()), None);
    }
}
