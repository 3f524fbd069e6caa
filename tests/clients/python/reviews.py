"""Questions about rights and tokens, a CSR to approve and a Lease, by the stock Python client.

Arguments: the administrator's token, a cluster with a tunnel, and one whose agent waits to be let in."""

import re
import sys

from hub import CLUSTERS, client, custom, refused

token, connected, waiting = sys.argv[1:]
authorization = client.AuthorizationV1Api()
authentication = client.AuthenticationV1Api()
certificates = client.CertificatesV1Api()
GROUP = "cluster.open-cluster-management.io"


def may(user, verb, name):
    attributes = client.V1ResourceAttributes(group=GROUP, resource="managedclusters", verb=verb, name=name)
    if user is None:
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        return authorization.create_self_subject_access_review(review).status
    spec = client.V1SubjectAccessReviewSpec(resource_attributes=attributes, user=user)
    return authorization.create_subject_access_review(client.V1SubjectAccessReview(spec=spec)).status


print("self", may(None, "proxy", "one").allowed)
print("nobody", may("nobody", "get", "one").allowed)
rules = client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace="default"))
rules = authorization.create_self_subject_rules_review(rules).status
print("rules", any(rule.verbs == ["*"] and rule.resources == ["*"] for rule in rules.resource_rules), rules.incomplete)
print("who", authentication.create_self_subject_review(client.V1SelfSubjectReview()).status.user_info.username)
for what, shown in (("token", token), ("wrong token", token[:-4] + "zzzz")):
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=shown))
    status = authentication.create_token_review(review).status
    print(what, bool(status.authenticated), status.user.username if status.user else None)

asked = certificates.list_certificate_signing_request(label_selector=f"open-cluster-management.io/cluster-name={waiting}")
print("asked", [(each.metadata.name, each.spec.username, each.status.conditions) for each in asked.items])
asked = asked.items[0]
condition = client.V1CertificateSigningRequestCondition(
    type="Approved", status="True", reason="ByScript", message="looks good"
)
asked.status = client.V1CertificateSigningRequestStatus(conditions=[condition])
approved = certificates.replace_certificate_signing_request_approval(asked.metadata.name, asked)
print("approved", [(each.type, each.status) for each in approved.status.conditions])
condition = client.V1CertificateSigningRequestCondition(type="Denied", status="True", reason="ByScript")
approved.status.conditions = [condition]
refused("denied", certificates.replace_certificate_signing_request_approval, asked.metadata.name, approved)
accepted = custom.patch_cluster_custom_object(
    **CLUSTERS, name=waiting, body={"spec": {"hubAcceptsClient": True}}, _content_type="application/merge-patch+json"
)
print("accepted", accepted["spec"]["hubAcceptsClient"])

leases = client.CoordinationV1Api()
lease = leases.read_namespaced_lease("managed-cluster-lease", connected)
print("lease", lease.spec.lease_duration_seconds, type(lease.spec.renew_time).__name__, lease.metadata.labels)
raw = leases.read_namespaced_lease("managed-cluster-lease", connected, _preload_content=False).data
print("as MicroTime", bool(re.search(r'"renewTime": ?"[0-9-]{10}T[0-9:]{8}\.[0-9]{6}Z"', raw.decode())))
everywhere = leases.list_lease_for_all_namespaces()
print("leases", [each.metadata.namespace for each in everywhere.items])
refused("lease", leases.delete_namespaced_lease, "managed-cluster-lease", connected)
