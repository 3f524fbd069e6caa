//! The Rust client kube and its runtime: typed and dynamic objects, and a reflector through a lost link and a lost history.

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::client::Body;
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error, ResourceExt as _};
use serde_json::json;
use tests::{Hub, Link};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{BOUND, History, delete, label, make};

/// The client, on a connection of ours for each request: its own TLS would turn on TLS 1.2 for the whole workspace.
fn client(hub: &Hub, address: std::net::SocketAddr) -> Result<Client> {
    client_below(hub, address, "")
}

/// As [`client`], of the API server whose URL is the hub's with this path.
pub(crate) fn client_below(hub: &Hub, address: std::net::SocketAddr, path: &'static str) -> Result<Client> {
    let connector = TlsConnector::from(hub.credentials().mutual_tls()?);
    let service = tower::service_fn(move |mut request: hyper::Request<Body>| {
        let connector = connector.clone();
        async move {
            request.headers_mut().insert("host", tests::HUB_NAME.try_into()?);
            *request.uri_mut() = format!("{path}{}", request.uri()).parse()?;
            let stream = connector.connect(tests::HUB_NAME.try_into()?, TcpStream::connect(address).await?).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let mut carrier = JoinSet::new();
            // What a connection ends with shows in the answer's body.
            carrier.spawn(async { drop(connection.await) });
            let answer = sender.send_request(request).await?;
            Ok::<_, anyhow::Error>(answer.map(|body| {
                // The connection is carried for as long as its answer is read.
                http_body_util::BodyExt::map_frame(body, move |frame| {
                    let _carrier = &carrier;
                    frame
                })
            }))
        }
    });
    Ok(Client::new(service, "default"))
}

fn clusters(client: Client) -> (Api<DynamicObject>, ApiResource) {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("cluster.open-cluster-management.io", "v1", "ManagedCluster"));
    (Api::all_with(client, &resource), resource)
}

fn cluster(name: &str, resource: &ApiResource) -> DynamicObject {
    DynamicObject::new(name, resource).data(json!({ "spec": { "hubAcceptsClient": false } }))
}

/// Code and reason, as the client has read them.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> Result<(u16, String)> {
    match answer {
        Err(Error::Api(status)) => Ok((status.code, status.reason.clone())),
        other => bail!("not refused by the API: {other:?}"),
    }
}

#[tokio::test]
async fn kubes_discovery_understands_both_forms() -> Result<()> {
    let hub = Hub::start().await?;
    let client = client(&hub, hub.addresses().api)?;
    let plain = Discovery::new(client.clone()).run().await?;
    let aggregated = Discovery::new(client).run_aggregated().await?;
    for found in [plain, aggregated] {
        let kind = GroupVersionKind::gvk("cluster.open-cluster-management.io", "v1", "ManagedCluster");
        let (resource, capabilities) = found.resolve_gvk(&kind).context("no ManagedCluster")?;
        assert_eq!((resource.plural.as_str(), &capabilities.scope), ("managedclusters", &Scope::Cluster));
        assert!(capabilities.supports_operation(verbs::WATCH));
        assert!(capabilities.subresources.iter().any(|(status, _)| status.plural == "status"), "{capabilities:?}");
        let role = GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "Role");
        assert_eq!(found.resolve_gvk(&role).context("no Role")?.1.scope, Scope::Namespaced);
        let mut groups: Vec<&str> = found.groups().map(|group| group.name()).collect();
        groups.sort_unstable();
        assert_eq!(
            groups,
            [
                "",
                "addon.open-cluster-management.io",
                "authentication.k8s.io",
                "authorization.k8s.io",
                "certificates.k8s.io",
                "cluster.open-cluster-management.io",
                "coordination.k8s.io",
                "rbac.authorization.k8s.io",
            ]
        );
    }
    Ok(())
}

#[tokio::test]
async fn kubes_client_lists_in_pages_and_writes_in_every_way() -> Result<()> {
    let hub = Hub::start().await?;
    let client = client(&hub, hub.addresses().api)?;
    let (api, resource) = clusters(client.clone());
    for number in 0..25 {
        api.create(&PostParams::default(), &cluster(&format!("c{number:02}"), &resource)).await?;
    }
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(10);
    let mut remaining = Vec::new();
    loop {
        let list = api.list(&page).await?;
        names.extend(list.items.iter().map(|item| item.name_any()));
        remaining.push(list.metadata.remaining_item_count);
        let Some(token) = list.metadata.continue_.filter(|token| !token.is_empty()) else { break };
        page = page.continue_token(&token);
    }
    assert_eq!(names, (0..25).map(|number| format!("c{number:02}")).collect::<Vec<_>>());
    assert_eq!(remaining, [Some(15), Some(5), None]);

    let first = api.get("c00").await?;
    let merged =
        api.patch("c00", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"a": "1"}}}))).await?;
    assert_eq!(merged.labels()["a"], "1");
    assert_eq!(refusal(api.replace("c00", &PostParams::default(), &first).await)?, (409, "Conflict".to_owned()));
    let again = api.create(&PostParams::default(), &cluster("c00", &resource)).await;
    assert_eq!(refusal(again)?, (409, "AlreadyExists".to_owned()));
    assert_eq!(refusal(api.get("nobody").await)?, (404, "NotFound".to_owned()));
    let strategic = api.patch("c00", &PatchParams::default(), &Patch::Strategic(json!({}))).await;
    assert_eq!(refusal(strategic)?, (415, "UnsupportedMediaType".to_owned()));

    let wanted = |lease: u32| {
        let spec = json!({ "hubAcceptsClient": false, "leaseDurationSeconds": lease });
        DynamicObject::new("applied", &resource).data(json!({ "spec": spec }))
    };
    let applied = api.patch("applied", &PatchParams::apply("first"), &Patch::Apply(wanted(30))).await?;
    assert_eq!(applied.managed_fields()[0].operation.as_deref(), Some("Apply"));
    let conflict = api.patch("applied", &PatchParams::apply("second"), &Patch::Apply(wanted(31))).await;
    assert_eq!(refusal(conflict)?, (409, "Conflict".to_owned()));
    let forced = api.patch("applied", &PatchParams::apply("second").force(), &Patch::Apply(wanted(31))).await?;
    assert_eq!(forced.data["spec"]["leaseDurationSeconds"], 31);

    let gone = api.delete("applied", &DeleteParams::default()).await?;
    assert!(gone.right().is_some_and(|status| status.is_success()));
    let all = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    assert_eq!(all.left().map(|list| list.items.len()), Some(25));

    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    let asked = ResourceAttributes {
        verb: Some("proxy".into()),
        resource: Some("managedclusters".into()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(asked),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let review = reviews.create(&PostParams::default(), &review).await?;
    assert!(review.status.is_some_and(|status| status.allowed));
    Ok(())
}

#[tokio::test]
async fn kubes_watch_tells_changes_and_where_it_ended() -> Result<()> {
    let hub = Hub::start().await?;
    let api: Api<Namespace> = Api::all(client(&hub, hub.addresses().api)?);
    let begin =
        api.list(&ListParams::default()).await?.metadata.resource_version.context("a list without a revision")?;
    make(&hub, "one").await?;
    label(&hub, "one", "1").await?;
    delete(&hub, "one").await?;
    let events = api.watch(&WatchParams::default().timeout(1), &begin).await?;
    let told = timeout(BOUND, events.collect::<Vec<_>>()).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (last, changes) = told.split_last().context("it told nothing")?;
    let kinds: Vec<String> = changes
        .iter()
        .map(|event| match event {
            WatchEvent::Added(space) => format!("added {}", space.name_any()),
            WatchEvent::Modified(space) => format!("modified {}", space.name_any()),
            WatchEvent::Deleted(space) => format!("deleted {}", space.name_any()),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["added one", "modified one", "deleted one"]);
    let WatchEvent::Bookmark(bookmark) = last else { bail!("it ended with {last:?}") };
    let [begin, end] = [&begin, &bookmark.metadata.resource_version].map(|revision| revision.parse::<u64>());
    ensure!(end? >= begin? + 3, "the bookmark is not behind the changes");
    Ok(())
}

/// The next event, as text.
async fn next(events: &mut (impl Stream<Item = watcher::Result<Event<Namespace>>> + Unpin)) -> Result<String> {
    let event = timeout(BOUND, events.next()).await.context("no event")?.context("the watcher ended")?;
    Ok(match event {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(space)) => format!("init {}", space.name_any()),
        Ok(Event::InitDone) => "init done".to_owned(),
        Ok(Event::Apply(space)) => format!("apply {}", space.name_any()),
        Ok(Event::Delete(space)) => format!("delete {}", space.name_any()),
        Err(watcher::Error::WatchError(status)) => format!("error {}", status.code),
        Err(_) => "error of the link".to_owned(),
    })
}

/// The events up to one, leaving out the errors of a cut link, of which there may be any number.
async fn until(
    events: &mut (impl Stream<Item = watcher::Result<Event<Namespace>>> + Unpin),
    end: &str,
) -> Result<Vec<String>> {
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != end) {
        let event = next(events).await?;
        if event != "error of the link" {
            told.push(event);
        }
    }
    Ok(told)
}

fn held(store: &Store<Namespace>) -> Vec<String> {
    let mut names: Vec<String> = store.state().iter().map(|space| space.name_any()).collect();
    names.sort_unstable();
    names
}

async fn reflects(config: watcher::Config) -> Result<()> {
    let hub = Hub::start().await?;
    let history = History::of(&hub).await?;
    let link = Link::start(hub.addresses().api).await?;
    for name in ["gone", "kept"] {
        make(&hub, name).await?;
    }
    let api: Api<Namespace> = Api::all(client(&hub, link.address())?);
    let (store, writer) = reflector::store();
    let mut events = std::pin::pin!(reflector::reflector(writer, watcher(api, config)));
    assert_eq!(until(&mut events, "init done").await?, ["init", "init default", "init gone", "init kept", "init done"]);
    label(&hub, "kept", "1").await?;
    assert_eq!(until(&mut events, "apply kept").await?, ["apply kept"]);
    assert_eq!(held(&store), ["default", "gone", "kept"]);

    link.cut();
    delete(&hub, "gone").await?;
    make(&hub, "new").await?;
    history.forget(&hub).await?;
    link.mend();
    let told = until(&mut events, "init done").await?;
    assert_eq!(told, ["error 410", "init", "init default", "init kept", "init new", "init done"]);
    assert_eq!(held(&store), ["default", "kept", "new"]);
    delete(&hub, "new").await?;
    assert_eq!(until(&mut events, "delete new").await?, ["delete new"]);
    assert_eq!(held(&store), ["default", "kept"]);
    Ok(())
}

#[tokio::test]
async fn kubes_reflector_lists_anew_when_its_place_is_forgotten() -> Result<()> {
    reflects(watcher::Config::default().page_size(2)).await
}

#[tokio::test]
async fn kubes_reflector_streams_its_list_anew_when_its_place_is_forgotten() -> Result<()> {
    reflects(watcher::Config::default().streaming_lists()).await
}
