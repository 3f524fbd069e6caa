"""Questions about rights and tokens, an approved CSR and a Lease, by the stock Python client. Arguments: a token, a CSR file, a cluster."""

import base64
import sys

from hub import client, refused

token, request_file, cluster_name = sys.argv[1:]
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

with open(request_file, "rb") as file:
    request = base64.b64encode(file.read()).decode()
spec = client.V1CertificateSigningRequestSpec(
    request=request, signer_name="kubernetes.io/kube-apiserver-client", usages=["client auth"]
)
body = client.V1CertificateSigningRequest(metadata=client.V1ObjectMeta(name="asked"), spec=spec)
asked = certificates.create_certificate_signing_request(body)
print("csr", asked.metadata.name, asked.spec.username, asked.status.conditions)
condition = client.V1CertificateSigningRequestCondition(
    type="Approved", status="True", reason="ByScript", message="looks good"
)
asked.status.conditions = [condition]
approved = certificates.replace_certificate_signing_request_approval("asked", asked)
print("approved", [(each.type, each.status, each.reason) for each in approved.status.conditions])
condition = client.V1CertificateSigningRequestCondition(type="Denied", status="True", reason="ByScript")
approved.status.conditions = [condition]
refused("denied", certificates.replace_certificate_signing_request_approval, "asked", approved)

leases = client.CoordinationV1Api().list_lease_for_all_namespaces().items
for lease in leases:
    if lease.metadata.namespace == cluster_name:
        print("lease", lease.metadata.name, lease.spec.lease_duration_seconds, lease.spec.renew_time is not None)
refused("lease", client.CoordinationV1Api().delete_namespaced_lease, "managed-cluster-lease", cluster_name)
