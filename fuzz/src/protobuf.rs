//! Kubernetes' protobuf: an object of a kind that is known, no deeper or larger than its length allows, that can be stored.

use registry::kube::body::{Body, Origin, decode};

use crate::{
    cost::{bounded, grown},
    stored,
};

const TYPE: &str = "application/vnd.kubernetes.protobuf";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len().try_into().expect("a seed is short")], bytes].concat()
    }
    let envelope = |api_version: &str, kind: &str, raw: &[u8]| {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [&b"k8s\0"[..], &field(1, &type_meta), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    };
    let time = field(8, b"\x08\x80\xb0\x9e\x9a\x06");
    let labels = field(11, &[field(1, b"a"), field(2, b"b")].concat());
    let managed =
        field(17, &[field(1, b"kubectl"), field(2, b"Apply"), field(7, &field(1, b"{\"f:a\":[[{}]]}"))].concat());
    let metadata = field(1, &[field(1, b"demo"), time, labels, managed].concat());
    let rule = field(2, &[field(1, b"get"), field(2, b""), field(3, b"pods")].concat());
    let extra = field(5, &[field(1, b"k"), field(2, &field(1, b"v"))].concat());
    let mut seeds = vec![
        b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x1e\n\x16\n\x04demo\x12\0\x1a\0\"\0*\x002\08\0B\0r\0\x12\0\x1a\x02\n\0\x1a\0\"\0".to_vec(),
        envelope("v1", "Namespace", &metadata),
        envelope("v1", "Secret", &[metadata.clone(), field(2, &[field(1, b"k"), field(2, b"\xff\0")].concat())].concat()),
        envelope("rbac.authorization.k8s.io/v1", "ClusterRole", &[metadata.clone(), rule].concat()),
        envelope("authorization.k8s.io/v1", "SubjectAccessReview", &[metadata.clone(), field(2, &extra)].concat()),
        envelope("certificates.k8s.io/v1", "CertificateSigningRequest", &[metadata, field(2, &extra)].concat()),
        envelope("coordination.k8s.io/v1", "Lease", &field(2, &field(3, b"\x08\x01\x10\x05"))),
        envelope("v1", "DeleteOptions", b"\x08\0\x12\x03\n\x01u"),
    ];
    // 2048 entries of `managedFields` with nothing in them.
    let type_meta = field(1, &[field(1, b"v1"), field(2, b"Namespace")].concat());
    let start = [&b"k8s\0"[..], &type_meta, b"\x12\x83\x30\x0a\x80\x30"].concat();
    let length = start.len().try_into().expect("a seed is short");
    seeds.push([&[0xff, length, 3, 11], &start[..], b"\x8a\x01\0"].concat());
    seeds
}

pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let decoded = bounded(input.len(), || decode(Some(TYPE), &input, "Namespace", Origin::BuiltIn));
    match decoded {
        Err(error) => assert!(error.to_string().len() <= 4096, "{} bytes are told", error.to_string().len()),
        Ok(Body { object, duplicates }) => {
            assert!(duplicates.is_empty());
            stored::check(&object, input.len(), 0);
            assert!(
                ["apiVersion", "kind"].iter().all(|name| object.get(*name).is_some_and(serde_json::Value::is_string))
            );
            // It is Kubernetes' form: what was decoded is read as JSON alike.
            let json = serde_json::to_vec(&object).expect("what was decoded can be encoded");
            let again = decode(None, &json, "Namespace", Origin::BuiltIn).expect("what was decoded is an object");
            assert_eq!(again.object, object);
            assert!(
                decode(Some(TYPE), &input, "ManagedCluster", Origin::Custom).is_err(),
                "custom kinds have no protobuf"
            );
        }
    }
}
