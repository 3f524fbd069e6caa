"""The hub of a scenario, as the stock Python client reaches it, and how refusals are printed."""

import json
import re

from kubernetes import client, config

config.load_kube_config()

CLUSTERS = {"group": "cluster.open-cluster-management.io", "version": "v1", "plural": "managedclusters"}

custom = client.CustomObjectsApi()
core = client.CoreV1Api()
rbac = client.RbacAuthorizationV1Api()


def cluster(name, **metadata):
    return {
        "apiVersion": "cluster.open-cluster-management.io/v1",
        "kind": "ManagedCluster",
        "metadata": {"name": name, **metadata},
        "spec": {"hubAcceptsClient": False},
    }


def create_cluster(name, **metadata):
    return custom.create_cluster_custom_object(**CLUSTERS, body=cluster(name, **metadata))


def refused(what, call, *arguments, **options):
    """Prints why a call was refused, as the client's own exception has it."""
    try:
        call(*arguments, **options)
    except client.ApiException as refusal:
        status = json.loads(refusal.body)
        message = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID", status["message"])
        message = re.sub(r"current: [0-9]+", "current: REVISION", message)
        print(what, refusal.status, status["code"] == refusal.status, status["reason"], message, sep=" | ")
    else:
        print(what, "was not refused")
