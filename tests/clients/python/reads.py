"""Lists in pages, discovery and OpenAPI, by the stock Python client."""

import json

from kubernetes import dynamic

from hub import CLUSTERS, client, core, create_cluster, custom, rbac, refused


def pages():
    for number in range(25):
        create_cluster(f"c{number:02}", labels={"parity": "even" if number % 2 == 0 else "odd"})
    seen, revisions, token = [], set(), None
    while token != "":
        page = custom.list_cluster_custom_object(**CLUSTERS, limit=10, _continue=token)
        metadata = page["metadata"]
        print("page of", len(page["items"]), "remaining", metadata.get("remainingItemCount"))
        seen += [item["metadata"]["name"] for item in page["items"]]
        revisions.add(metadata["resourceVersion"])
        token = metadata.get("continue", "")
        if len(seen) == 10:
            # The pages go on showing the moment of the first.
            create_cluster("c10a")
            custom.delete_cluster_custom_object(**CLUSTERS, name="c24")
    print("in order", seen == [f"c{number:02}" for number in range(25)], "moments", len(revisions))
    even = custom.list_cluster_custom_object(**CLUSTERS, label_selector="parity=even", limit=7)
    print("even", len(even["items"]), even["metadata"].get("remainingItemCount"), "continue" in even["metadata"])
    named = custom.list_cluster_custom_object(**CLUSTERS, field_selector="metadata.name=c03")
    print("named", [item["metadata"]["name"] for item in named["items"]])
    roles = rbac.list_cluster_role(limit=3)
    print("typed page", len(roles.items), roles.metadata.remaining_item_count > 0, roles.items[0].kind)
    rest = rbac.list_cluster_role(_continue=roles.metadata._continue)
    print("typed rest", rest.metadata._continue, rest.items[0].metadata.name > roles.items[-1].metadata.name)
    refused("continue", custom.list_cluster_custom_object, **CLUSTERS, _continue="nonsense")
    refused("selector", custom.list_cluster_custom_object, **CLUSTERS, label_selector="a in (")
    refused("field", custom.list_cluster_custom_object, **CLUSTERS, field_selector="spec.color=red")
    refused("future", core.list_namespace, resource_version="999999999")
    refused("missing", custom.get_cluster_custom_object, **CLUSTERS, name="nobody")
    refused("kind", custom.list_cluster_custom_object, **{**CLUSTERS, "plural": "cows"})


def discovery():
    found = dynamic.DynamicClient(client.ApiClient())
    kinds = [
        (resource.group_version, resource.kind, resource.namespaced, ",".join(resource.verbs))
        for listed in found.resources
        for resource in listed
        if not resource.kind.endswith("List") and "/" not in resource.name
    ]
    for kind in sorted(kinds):
        print(*kind)
    clusters = found.resources.get(api_version="cluster.open-cluster-management.io/v1", kind="ManagedCluster")
    print("subresources", sorted(clusters.subresources))
    got = clusters.get(name="c03")
    print("dynamic", got.kind, got.metadata.name, got.spec.hubAcceptsClient)
    short = found.resources.get(short_names=["mcl", "mcls"])
    print("by short name", short.name, short.singular_name, found.version["kubernetes"]["gitVersion"][:2])


def fetch(path):
    api = client.ApiClient()
    answer = api.call_api("GET", api.configuration.host + path, {"Accept": "application/json"})
    return json.loads(answer.read())


def openapi():
    index = fetch("/openapi/v3")
    for path in sorted(index["paths"]):
        url = index["paths"][path]["serverRelativeURL"]
        digest = url.partition("?hash=")[2]
        document = fetch(url)
        schemas = document["components"]["schemas"]
        missing = [name for name in references(document) if name.removeprefix("#/components/schemas/") not in schemas]
        print("openapi", path, document["openapi"], "hash" if digest else "no hash", "missing", missing)
        for name, operations in sorted(document["paths"].items()):
            if name.endswith("/managedclusters/{name}"):
                print(name, sorted(key for key in operations if key != "parameters"))
                print(sorted(operations["patch"]["requestBody"]["content"]))
                print(operations["patch"]["x-kubernetes-group-version-kind"])


def references(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


pages()
discovery()
openapi()
