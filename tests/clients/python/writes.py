"""Every kind of write and its refusals, by the stock Python client."""

import json

from kubernetes import dynamic

from hub import CLUSTERS, client, cluster, core, create_cluster, custom, rbac, refused

API = dynamic.DynamicClient(client.ApiClient())
RESOURCE = API.resources.get(api_version="cluster.open-cluster-management.io/v1", kind="ManagedCluster")
JSON, MERGE, STRATEGIC = (f"application/{kind}+json" for kind in ("json-patch", "merge-patch", "strategic-merge-patch"))
BINDING = {"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSetBinding"}
BINDINGS = {
    "group": "cluster.open-cluster-management.io",
    "version": "v1beta2",
    "namespace": "work",
    "plural": "managedclustersetbindings",
}


def custom_objects():
    created = create_cluster("one", labels={"a": "1"})
    metadata = created["metadata"]
    taints = [taint["key"] for taint in created["spec"].pop("taints")]
    print("created", metadata["name"], metadata["generation"], len(metadata["uid"]), created["spec"], taints)
    refused("again", create_cluster, "one")
    patched = custom.patch_cluster_custom_object(
        **CLUSTERS, name="one", body={"metadata": {"labels": {"a": None, "b": "2"}}}, _content_type=MERGE
    )
    print("merged", labels(patched), patched["metadata"]["generation"])
    operations = [
        {"op": "test", "path": "/metadata/labels/b", "value": "2"},
        {"op": "add", "path": "/metadata/labels/c", "value": "3"},
        {"op": "replace", "path": "/spec/leaseDurationSeconds", "value": 30},
    ]
    patched = custom.patch_cluster_custom_object(**CLUSTERS, name="one", body=operations, _content_type=JSON)
    del patched["spec"]["taints"]
    print("by operations", labels(patched), patched["spec"], patched["metadata"]["generation"])
    again = custom.patch_cluster_custom_object(**CLUSTERS, name="one", body={"metadata": {}}, _content_type=MERGE)
    same = again["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]
    print("nothing changed", same)
    failed = [{"op": "test", "path": "/metadata/labels/b", "value": "3"}]
    refused("test", custom.patch_cluster_custom_object, **CLUSTERS, name="one", body=failed, _content_type=JSON)
    refused("strategic", custom.patch_cluster_custom_object, **CLUSTERS, name="one", body={}, _content_type=STRATEGIC)

    stale = {**again, "metadata": {**again["metadata"], "resourceVersion": metadata["resourceVersion"]}}
    refused("stale", custom.replace_cluster_custom_object, **CLUSTERS, name="one", body=stale)
    unversioned = {**again, "metadata": {"name": "one"}}
    refused("no version", custom.replace_cluster_custom_object, **CLUSTERS, name="one", body=unversioned)
    again["spec"]["leaseDurationSeconds"] = 45
    replaced = custom.replace_cluster_custom_object(**CLUSTERS, name="one", body=again)
    print("replaced", replaced["spec"]["leaseDurationSeconds"], replaced["metadata"]["generation"])

    wrong = cluster("two")
    wrong["spec"]["hubAcceptsClient"] = "perhaps"
    refused("type", custom.create_cluster_custom_object, **CLUSTERS, body=wrong)
    wrong["spec"] = {"hubAcceptsClient": False, "colour": "red"}
    refused("unknown", custom.create_cluster_custom_object, **CLUSTERS, body=wrong, field_validation="Strict")
    dry = custom.create_cluster_custom_object(**CLUSTERS, body=cluster("two"), dry_run="All")
    print("dry run", dry["metadata"]["name"])
    refused("not there", custom.get_cluster_custom_object, **CLUSTERS, name="two")
    generated = cluster(None, generateName="made-")
    del generated["metadata"]["name"]
    name = custom.create_cluster_custom_object(**CLUSTERS, body=generated)["metadata"]["name"]
    print("generated", name[:5], len(name))
    status_alone()
    deletions(name)


def status_alone():
    condition = {
        "type": "Tested",
        "status": "True",
        "reason": "ByScript",
        "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    body = {"status": {"conditions": [condition]}, "spec": {"leaseDurationSeconds": 1}}
    changed = custom.patch_cluster_custom_object_status(**CLUSTERS, name="one", body=body, _content_type=MERGE)
    types = [each["type"] for each in changed["status"]["conditions"]]
    print("status", "Tested" in types, changed["spec"]["leaseDurationSeconds"], changed["metadata"]["generation"])
    ignored = custom.patch_cluster_custom_object(
        **CLUSTERS, name="one", body={"status": {"conditions": None}}, _content_type=MERGE
    )
    print("status stays", "Tested" in [each["type"] for each in ignored["status"]["conditions"]])


def deletions(generated):
    one = custom.get_cluster_custom_object(**CLUSTERS, name="one")
    other = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="0"))
    refused("other uid", custom.delete_cluster_custom_object, **CLUSTERS, name="one", body=other)
    held = {"metadata": {"finalizers": ["example.com/hold"]}}
    custom.patch_cluster_custom_object(**CLUSTERS, name="one", body=held, _content_type=MERGE)
    answer = custom.delete_cluster_custom_object(**CLUSTERS, name="one")
    print("held", answer["kind"], "deletionTimestamp" in answer["metadata"])
    free = {"metadata": {"finalizers": None}}
    custom.patch_cluster_custom_object(**CLUSTERS, name="one", body=free, _content_type=MERGE)
    refused("gone", custom.get_cluster_custom_object, **CLUSTERS, name="one")
    print("another", create_cluster("one")["metadata"]["uid"] != one["metadata"]["uid"])
    answer = custom.delete_cluster_custom_object(**CLUSTERS, name=generated)
    print("deleted", answer["kind"], answer["status"], answer["details"]["kind"], answer["details"]["name"] == generated)
    custom.delete_collection_cluster_custom_object(**CLUSTERS)
    refused("twice", custom.delete_cluster_custom_object, **CLUSTERS, name="one")
    print("left", len(custom.list_cluster_custom_object(**CLUSTERS)["items"]))


def built_in():
    space = core.create_namespace({"metadata": {"name": "work", "labels": {"a": "1"}}})
    print("namespace", space.metadata.name, space.status.phase)
    space = core.patch_namespace("work", {"metadata": {"labels": {"b": "2"}}}, _content_type=STRATEGIC)
    print("strategic", mine(space.metadata.labels))
    rule = client.V1PolicyRule(api_groups=[""], resources=["secrets"], verbs=["get"])
    role = client.V1Role(metadata=client.V1ObjectMeta(name="reader"), rules=[rule])
    role = rbac.create_namespaced_role("work", role)
    print("role", role.rules[0].verbs, type(role.metadata.creation_timestamp).__name__)
    patch = {"rules": [{"apiGroups": [""], "resources": ["events"], "verbs": ["list"]}]}
    role = rbac.patch_namespaced_role("reader", "work", patch, _content_type=STRATEGIC)
    print("rules are one", [rule.resources for rule in role.rules])
    stale = role.metadata.resource_version
    rbac.patch_namespaced_role("reader", "work", {"metadata": {"labels": {"a": "1"}}}, _content_type=MERGE)
    role.metadata.resource_version = stale
    refused("stale role", rbac.replace_namespaced_role, "reader", "work", role)
    role.metadata.resource_version = None
    role.metadata.managed_fields = None
    print("unconditional", rbac.replace_namespaced_role("reader", "work", role).metadata.labels)
    binding = {**BINDING, "metadata": {"name": "global"}, "spec": {"clusterSet": "default"}}
    refused("binding", custom.create_namespaced_custom_object, **BINDINGS, body=binding)
    binding["spec"]["clusterSet"] = "global"
    bound = custom.create_namespaced_custom_object(**BINDINGS, body=binding)
    print("bound", bound["metadata"]["namespace"], bound["spec"])
    refused("no namespace", rbac.create_namespaced_role, "nowhere", {"metadata": {"name": "reader"}})
    refused("bad name", core.create_namespace, {"metadata": {"name": "No_Name"}})
    rbac.delete_namespaced_role("reader", "work")
    refused("role deleted", rbac.read_namespaced_role, "reader", "work")


def applies():
    def apply(manager, spec, force=False):
        body = {"apiVersion": RESOURCE.group_version, "kind": "ManagedCluster", "metadata": {"name": "applied"}, "spec": spec}
        return API.server_side_apply(RESOURCE, body=body, name="applied", field_manager=manager, force_conflicts=force)

    first = apply("first", {"hubAcceptsClient": False, "leaseDurationSeconds": 30})
    entry = first.metadata.managedFields[0]
    print("applied", first.spec.leaseDurationSeconds, entry.manager, entry.operation)
    try:
        apply("second", {"leaseDurationSeconds": 31})
    except dynamic.exceptions.ConflictError as conflict:
        print("conflict", conflict.status, json.loads(conflict.body)["message"])
    forced = apply("second", {"leaseDurationSeconds": 31}, force=True)
    print("forced", forced.spec.leaseDurationSeconds, sorted(each.manager for each in forced.metadata.managedFields))
    apply("second", {})
    left = apply("first", {"hubAcceptsClient": False})
    print("left out", left.spec.leaseDurationSeconds)
    RESOURCE.delete(name="applied")


def labels(found):
    return mine(found["metadata"]["labels"])


def mine(found):
    """The labels that a script set: the hub adds its own, whose names have a domain."""
    return {name: value for name, value in sorted(found.items()) if "/" not in name}


custom_objects()
built_in()
applies()
