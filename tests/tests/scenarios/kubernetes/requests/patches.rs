//! Patches of every type: what is none, does not fit the object, or is for another kind.

use anyhow::{Context as _, Result, ensure};
use hyper::Method;

use super::{
    APPLY_PATCH, CLUSTERS, JSON_PATCH, MERGE_PATCH, NAMESPACES, STRATEGIC_PATCH, body, clusters, fails, good, hub,
    is_failure, is_unharmed,
};

#[tokio::test]
async fn patches_that_are_none_or_do_not_fit_are_refused() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let one = format!("{CLUSTERS}/c1");
    let namespace = format!("{NAMESPACES}/default");
    let invalid = (422, "Invalid");
    let bad = (400, "BadRequest");
    for (kind, text, (code, reason)) in [
        (JSON_PATCH, "", bad),
        (JSON_PATCH, "{}", bad),
        (JSON_PATCH, "[1]", bad),
        (JSON_PATCH, "[{\"op\": 1}]", bad),
        (JSON_PATCH, "[{}]", invalid),
        (JSON_PATCH, r#"[{"op":"explode","path":"/a"}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"remove","path":"/nothing/here"}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"replace","path":"no slash","value":1}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"test","path":"/metadata/name","value":"c2"}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"replace","path":"","value":7}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"replace","path":"/spec/hubAcceptsClient","value":"x"}]"#, invalid),
        (MERGE_PATCH, "", bad),
        (MERGE_PATCH, "[]", bad),
        (MERGE_PATCH, "null", bad),
        (MERGE_PATCH, "{\"spec\":", bad),
        (MERGE_PATCH, r#"{"kind":"Other"}"#, bad),
        (MERGE_PATCH, r#"{"metadata":{"name":"c2"}}"#, bad),
        (MERGE_PATCH, r#"{"spec":{"hubAcceptsClient":[]}}"#, invalid),
        (MERGE_PATCH, r#"{"metadata":{"labels":{"a":"b c"}}}"#, invalid),
        (MERGE_PATCH, r#"{"metadata":{"resourceVersion":"1"}}"#, (409, "Conflict")),
        (MERGE_PATCH, r#"{"metadata":{"uid":"other"}}"#, (409, "Conflict")),
        (APPLY_PATCH, "", bad),
        (APPLY_PATCH, "a: [", bad),
        (APPLY_PATCH, "[]", bad),
        (APPLY_PATCH, "{}", bad),
        (APPLY_PATCH, "kind: ManagedCluster", bad),
        (STRATEGIC_PATCH, "{}", (415, "UnsupportedMediaType")),
        ("application/json", "{}", (415, "UnsupportedMediaType")),
        ("text/plain", "{}", (415, "UnsupportedMediaType")),
        ("", "{}", (415, "UnsupportedMediaType")),
    ] {
        let path = if kind == APPLY_PATCH { format!("{one}?fieldManager=me") } else { one.clone() };
        fails(&hub, body(Method::PATCH, path, kind, text), code, reason).await?;
    }
    for (text, (code, reason)) in [
        ("", bad),
        ("[]", bad),
        ("{\"metadata\":", bad),
        (r#"{"metadata":{"finalizers":[{"$patch":"explode"}]}}"#, bad),
        (r#"{"metadata":{"labels":{"a":"b c"}}}"#, invalid),
    ] {
        let request = body(Method::PATCH, namespace.clone(), STRATEGIC_PATCH, text);
        let answer = hub.ask(request).await?;
        is_failure(&answer, code, reason).context(text)?;
    }
    let apply = |query: &str, text: &str| body(Method::PATCH, format!("{one}{query}"), APPLY_PATCH, text.to_owned());
    let missing = fails(&hub, apply("", &good().to_string()), 422, "Invalid").await?;
    ensure!(
        missing["message"]
            == "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    fails(&hub, apply("?fieldManager=me", &good().to_string()), 400, "BadRequest").await?;
    let owned = good().to_string().replace("\"c2\"", "\"c1\",\"managedFields\":[{\"manager\":\"x\"}]");
    fails(&hub, apply("?fieldManager=me", &owned), 400, "BadRequest").await?;
    let forced = body(Method::PATCH, format!("{one}?force=true"), MERGE_PATCH, "{}");
    let forced = fails(&hub, forced, 422, "Invalid").await?;
    ensure!(
        forced["message"]
            == "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        "{forced}"
    );
    fails(&hub, body(Method::PATCH, format!("{CLUSTERS}/c9"), MERGE_PATCH, "{}"), 404, "NotFound").await?;
    fails(&hub, body(Method::PATCH, CLUSTERS, MERGE_PATCH, "{}"), 405, "MethodNotAllowed").await?;
    is_unharmed(&hub, &before).await
}
