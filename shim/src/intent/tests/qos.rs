//! QoS policies and their rules.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::testing::Bench;
use super::super::{IntentError, QosError, qos};
use crate::model::{QosAction, QosRule};

fn refusal(error: IntentError) -> QosError {
    match error {
        IntentError::Qos(error) => error,
        other => panic!("{other}"),
    }
}

fn limit(direction: &str) -> QosAction {
    let limit = json!({"type": "bandwidth_limit", "max_kbps": 1000, "max_burst_kbps": 0,
        "direction": direction});
    serde_json::from_value(limit).unwrap()
}

fn add(bench: &mut Bench, policy: Uuid, action: QosAction) -> Result<QosRule, IntentError> {
    bench.carry_out(|s, c| qos::add_rule(s, c, policy, action))
}

#[test]
fn a_policy_has_one_rule_of_a_kind_and_direction() {
    let mut bench = Bench::default();
    let policy = bench.policy(json!({})).unwrap().common.id;
    let first = add(&mut bench, policy, limit("egress")).unwrap();
    let other = add(&mut bench, policy, limit("ingress")).unwrap();
    let mark = QosAction::DscpMarking { dscp_mark: 26 };
    add(&mut bench, policy, mark).unwrap();
    let error = add(&mut bench, policy, limit("egress")).unwrap_err();
    assert!(
        matches!(refusal(error), QosError::RulesConflict { existing, .. }
        if existing == first.id)
    );
    let turned = QosRule {
        id: first.id,
        action: other.action,
    };
    assert!(
        bench
            .carry_out(|s, c| qos::change_rule(s, c, policy, turned))
            .is_err()
    );
    bench
        .carry_out(|s, c| qos::remove_rule(s, c, policy, other.id))
        .unwrap();
    bench
        .carry_out(|s, c| qos::change_rule(s, c, policy, turned))
        .unwrap();
    let policy = bench.state.qos_policy(policy).unwrap();
    assert_eq!(policy.rules.len(), 2);
    assert_eq!(policy.common.revision_number, 5);
    assert_eq!(qos::policy_of_rule(&bench.state, first.id).unwrap(), policy);
    let gone = bench.carry_out(|s, c| qos::remove_rule(s, c, policy_id(s), other.id));
    assert!(matches!(
        refusal(gone.unwrap_err()),
        QosError::RuleNotFound { .. }
    ));
}

fn policy_id(state: &super::super::State) -> Uuid {
    state.qos_policies().next().unwrap().common.id
}

#[test]
fn a_policy_in_use_stays() {
    let mut bench = Bench::default();
    let policy = bench.policy(json!({})).unwrap().common.id;
    let net = bench.network(json!({"qos_policy_id": policy})).unwrap();
    let port = bench.port(&net, json!({"qos_policy_id": policy})).unwrap();
    let used_by = |bench: &mut Bench| {
        let deleted = bench.carry_out(|s, _| qos::delete(s, policy));
        match refusal(deleted.unwrap_err()) {
            QosError::InUse { user, .. } => user,
            other => panic!("{other}"),
        }
    };
    assert_eq!(used_by(&mut bench), "network");
    let none = serde_json::from_value(json!({"qos_policy_id": null})).unwrap();
    let id = net.common.id;
    bench
        .carry_out(|s, c| super::super::network::update(s, c, id, none))
        .unwrap();
    assert_eq!(used_by(&mut bench), "port");
    let same = bench
        .change_port(port.common.id, json!({"name": "x"}))
        .unwrap();
    assert_eq!(same.qos_policy_id, Some(policy));
    bench
        .change_port(port.common.id, json!({"qos_policy_id": null}))
        .unwrap();
    bench.carry_out(|s, _| qos::delete(s, policy)).unwrap();
    let error = bench.network(json!({"qos_policy_id": policy})).unwrap_err();
    assert_eq!(error, IntentError::not_found("QosPolicy", policy));
}

#[test]
fn a_port_has_its_own_policy_or_its_networks_and_a_network_its_projects() {
    let mut bench = Bench::default();
    let with = |project: &str| json!({"project_id": project, "is_default": true});
    let default = bench.policy(with("p")).unwrap().common.id;
    let error = bench.policy(with("p")).unwrap_err();
    assert_eq!(refusal(error), QosError::DefaultExists("p".into()));
    bench.policy(with("q")).unwrap();
    let own = bench.policy(json!({"project_id": "p"})).unwrap().common.id;
    let change: Value = json!({"is_default": true});
    let change = serde_json::from_value(change).unwrap();
    assert!(
        bench
            .carry_out(|s, c| qos::update(s, c, own, change))
            .is_err()
    );
    let net = bench.network(json!({"project_id": "p"})).unwrap();
    assert_eq!(net.qos_policy_id, Some(default));
    assert_eq!(bench.network(json!({})).unwrap().qos_policy_id, None);
    let port = bench.port(&net, json!({})).unwrap();
    let in_force = |bench: &Bench, port| {
        let policy = bench.state.policy_in_force(port);
        policy.map(|policy| policy.common.id)
    };
    assert_eq!(in_force(&bench, &port), Some(default));
    let port = bench
        .change_port(port.common.id, json!({"qos_policy_id": own}))
        .unwrap();
    assert_eq!(in_force(&bench, &port), Some(own));
    let trusted = bench
        .port(&net, json!({"device_owner": "network:dhcp"}))
        .unwrap();
    assert_eq!(in_force(&bench, &trusted), None);
}
