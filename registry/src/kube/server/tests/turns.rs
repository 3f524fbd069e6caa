//! Attacks by haste: writes at the same moment, and writes that wait while their author loses what they may.

use std::sync::atomic::{AtomicBool, Ordering};

use super::grants::{GROUP, RBAC_GROUP, bind, binding, reaches, role, two_sets};
use super::*;

#[tokio::test]
async fn writes_at_the_same_moment_hand_out_no_more_than_one_after_the_other() {
    let mut landed = 0;
    for _ in 0..20 {
        let hub = two_sets().await;
        let admin = hub.admin();
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "m"}});
        admin.post("/api/v1/namespaces", space).await.ok();
        let opens = role("opens", json!([rule(GROUP, &["managedclusters"], &["proxy"], &[])]));
        admin.post(&format!("{RBAC}/clusterroles"), opens).await.ok();
        let bindings = format!("{RBAC}/namespaces/m/rolebindings");
        let in_space = |name: &str| {
            let mut binding = binding(name, "opens", "racer");
            binding["kind"] = json!("RoleBinding");
            binding
        };
        admin.post(&bindings, in_space("before")).await.ok();
        let writes = json!([
            rule(GROUP, &["managedclustersetbindings"], &["create"], &[]),
            rule(RBAC_GROUP, &["rolebindings"], &["create", "delete"], &[]),
        ]);
        hub.grant("racer", "m", writes).await;
        hub.grant("racer", "", json!([rule(GROUP, &["managedclustersets/bind"], &["create"], &["prod"])])).await;
        let racer = hub.user("racer");
        let sets = format!("/apis/{GROUP}/v1beta2/namespaces/m/managedclustersetbindings");
        let set = json!({
            "apiVersion": format!("{GROUP}/v1beta2"), "kind": "ManagedClusterSetBinding",
            "metadata": {"name": "prod"}, "spec": {"clusterSet": "prod"},
        });
        racer.post(&sets, set.clone()).await.refused(403, "Forbidden");
        let before = format!("{bindings}/before");
        let trying = async {
            for _ in 0..50 {
                if racer.post(&sets, set.clone()).await.code == 201 {
                    return true;
                }
                tokio::task::yield_now().await;
            }
            false
        };
        let (_, after, bound) = tokio::join!(racer.delete(&before), racer.post(&bindings, in_space("after")), trying);
        landed += usize::from(after.code == 201) + usize::from(bound);
        assert!(!reaches(&hub, "racer", "in-prod"), "{} {bound}", after.code);
    }
    assert!(landed > 0, "no write has come through");
}

#[tokio::test]
async fn a_right_or_a_user_that_goes_while_a_write_waits_for_its_turn_takes_the_write_along() {
    let hub = two_sets().await;
    let admin = hub.admin();
    let label = json!({"metadata": {"labels": {"x": "y"}}}).to_string();
    for (what, code) in [("the right", 403), ("the user", 401)] {
        let turn = hub.registry.turn("somebody").await.unwrap();
        let request = Request::patch(format!("{SETS}/dev")).header("content-type", MERGE);
        let request = request.body(Bytes::from(label.clone())).unwrap();
        let (mallory, gone) = (hub.user("mallory"), AtomicBool::new(false));
        let is_still = || !gone.load(Ordering::Relaxed);
        let writing = hub.server.answer(&request, &mallory.caller, StillValid(&is_still), now());
        let taking = async {
            // The write is in its turn's queue by now.
            tokio::task::yield_now().await;
            match code {
                403 => drop(admin.delete(&format!("{RBAC}/clusterrolebindings/dev")).await.ok()),
                _ => gone.store(true, Ordering::Relaxed),
            }
            drop(turn);
        };
        let (answer, ()) = tokio::join!(writing, taking);
        let Answer::Whole(response) = answer else { panic!("a watch") };
        assert_eq!(response.status(), code, "{what} is gone");
        if code == 403 {
            bind(&hub, "dev", "open-cluster-management:managedclusterset:admin:dev", "mallory").await;
        }
    }
    hub.user("mallory").patch(&format!("{SETS}/dev"), json!({"metadata": {"labels": {"x": "y"}}})).await.ok();
}
