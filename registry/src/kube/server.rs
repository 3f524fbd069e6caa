//! The server: takes a request apart, asks for its rights, and puts the answer together.

mod answer;
mod impersonation;
mod review;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use jiff::Timestamp;
use serde_json::{Map, Value};

use self::answer::Shape;
pub use self::answer::{Answer, Frames, WriteSummary};
pub use super::request_info::StillValid;
use super::{
    accept,
    body::{self, Body, Origin},
    cause::Cause,
    changes::Changes,
    discovery,
    list::list,
    object, openapi,
    options::{Propagation, ReadOptions, WriteOptions},
    patch,
    rbac::review::Caller,
    request_info::{RequestInfo, ResourceRef},
    resource::{self, Resource},
    selection::Selection,
    source::Source,
    status::Status,
    table::IncludeObject,
    target::{Target, Verb},
    watch::Watcher,
    write::{Deletion, Effect, Write},
};
use crate::registry::Registry;

/// The registry as a Kubernetes-style API server.
#[derive(Debug)]
pub struct Server {
    registry: Arc<Registry>,
    /// What its watchers share.
    changes: Arc<Changes>,
    /// Of this program, for `/version`.
    version: &'static str,
}

/// A request on a resource, after its rights were looked at.
#[derive(Clone, Copy, Debug)]
struct ResourceRequest<'a> {
    info: RequestInfo<'a>,
    request: &'a Request<Bytes>,
    resource: &'static Resource,
    target: &'a Target<'a>,
    now: Timestamp,
}

/// Who a request is to be taken for: its caller, or whom its `Impersonate-` fields name, if the caller has the right to.
pub fn impersonated(registry: &Registry, headers: &HeaderMap, caller: &Caller) -> Result<Caller, Status> {
    impersonation::caller(registry, headers, caller)
}

impl Server {
    pub fn new(registry: Arc<Registry>, version: &'static str) -> Self {
        Self { registry, changes: Arc::default(), version }
    }

    /// Answers a request of `caller`, whose groups include `system:authenticated`.
    /// `still` says whether that is who asks.
    pub async fn answer(
        &self,
        request: &Request<Bytes>,
        caller: &Caller,
        still: StillValid<'_>,
        now: Timestamp,
    ) -> Answer {
        let answered = match impersonation::caller(&self.registry, request.headers(), caller) {
            Ok(caller) => {
                self.route(request, RequestInfo { registry: &self.registry, caller: &caller, still }, now).await
            }
            Err(status) => Err(status),
        };
        answered.unwrap_or_else(|status| Answer::status(&status))
    }

    /// Whether a request takes a body, and is one that `caller` may make: to be asked before the body is read. Rights that go
    /// while it comes are noticed by [`Self::answer`].
    pub fn takes_body(&self, request: &Request<()>, caller: &Caller) -> Result<bool, Status> {
        let caller = impersonation::caller(&self.registry, request.headers(), caller)?;
        let info = RequestInfo { registry: &self.registry, caller: &caller, still: StillValid(&|| true) };
        let path = path(request.uri())?;
        // Documents take none.
        let Some(target) = Target::parse(&path) else { return Ok(false) };
        let (resource, verb) = resolve(request.method(), request.uri(), &path, &target, info)?;
        let Target { namespace, subresource, .. } = target;
        let name = target.name.unwrap_or_default();
        match verb {
            Verb::Get | Verb::List | Verb::Watch => Ok(false),
            Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => {
                info.require(verb.as_str(), &ResourceRef { resource, subresource, namespace, name }).map(|()| true)
            }
        }
    }

    async fn route(&self, request: &Request<Bytes>, info: RequestInfo<'_>, now: Timestamp) -> Result<Answer, Status> {
        let path = path(request.uri())?;
        let Some(target) = Target::parse(&path) else { return self.document(request, &path, info) };
        let (resource, verb) = resolve(request.method(), request.uri(), &path, &target, info)?;
        let asked = ResourceRequest { info, request, resource, target: &target, now };
        let query = request.uri().query().unwrap_or_default();
        match verb {
            Verb::Get => asked.get(query),
            Verb::List => asked.list(query),
            Verb::Watch => asked.watch(query, self),
            Verb::Create if resource.verbs == ["create"] => asked.review(),
            Verb::Create => asked.create(query).await,
            Verb::Update => asked.update(query).await,
            Verb::Patch => asked.patch(query).await,
            Verb::Delete => asked.delete(query).await,
            Verb::DeleteCollection => asked.delete_collection(query).await,
        }
    }

    /// What is no resource: health, version, discovery and OpenAPI.
    fn document(&self, request: &Request<Bytes>, path: &str, info: RequestInfo<'_>) -> Result<Answer, Status> {
        info.require_path(&request.method().as_str().to_lowercase(), path)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Status::method_not_allowed());
        }
        let accept = joined(request, header::ACCEPT);
        let document = match path.trim_end_matches('/') {
            "/healthz" | "/livez" | "/readyz" => return Ok(Answer::text("ok")),
            "/version" => discovery::version(self.version),
            "/openapi/v2" => openapi::v2(&accept).clone(),
            path => openapi::v3(path)
                .cloned()
                .or_else(|| discovery::document(path, &accept))
                .ok_or_else(Status::no_such_path)?,
        };
        Ok(Answer::document(document, &joined(request, header::IF_NONE_MATCH)))
    }
}

impl ResourceRequest<'_> {
    fn name(&self) -> &str {
        self.target.name.unwrap_or_default()
    }

    fn on<'a>(&'a self, name: &'a str) -> ResourceRef<'a> {
        let Target { namespace, subresource, .. } = *self.target;
        ResourceRef { resource: self.resource, subresource, namespace, name }
    }

    /// How the answer will look. To be asked for before anything is written: a 406 means that nothing was.
    fn shape(&self, include: IncludeObject) -> Result<Shape, Status> {
        let form = accept::form(&joined(self.request, header::ACCEPT));
        let form = form.ok_or_else(|| Status::not_acceptable(accept::Form::OFFERED))?;
        Ok(Shape { resource: self.resource, form, include, now: self.now })
    }

    fn get(&self, query: &str) -> Result<Answer, Status> {
        self.info.require("get", &self.on(self.name()))?;
        let source = Source::new(self.resource, self.target.namespace);
        let found = source.get(self.info.registry.store(), self.name());
        let (mut found, _) = found.ok_or_else(|| Status::not_found(self.resource, self.name()))?;
        self.show(&mut found);
        let include = ReadOptions::parse(query)?.include_object;
        Ok(self.shape(include)?.object(StatusCode::OK, &found, &[]))
    }

    /// A ClusterRole that is put together from others shows what it holds now.
    fn show(&self, object: &mut Value) {
        if self.resource.plural == "clusterroles" {
            let rules = self.info.registry.with_policy(|policy| {
                policy.aggregated_rules(object::name(object)).map(|rules| serde_json::json!(rules))
            });
            if let Some(rules) = rules {
                object["rules"] = rules;
            }
        }
    }

    fn list(&self, query: &str) -> Result<Answer, Status> {
        let options = ReadOptions::parse(query)?;
        let selection = self.selection("list", &options)?;
        let source = Source::new(self.resource, self.target.namespace);
        let mut page = list(self.info.registry, &source, &selection, &options)?;
        page.items.iter_mut().for_each(|item| self.show(item));
        Ok(self.shape(options.include_object)?.list(&page))
    }

    fn watch(&self, query: &str, server: &Server) -> Result<Answer, Status> {
        let options = ReadOptions { watch: true, ..ReadOptions::parse(query)? };
        let selection = self.selection("watch", &options)?;
        let shape = self.shape(options.include_object)?;
        let source = Source::new(self.resource, self.target.namespace);
        let watcher =
            Watcher::new(Arc::clone(&server.registry), Arc::clone(&server.changes), source, selection, &options)?;
        Ok(Answer::watch(shape, watcher))
    }

    /// A list is refused only to those who may see nothing of it, whatever there will be.
    fn selection(&self, verb: &str, options: &ReadOptions) -> Result<Selection, Status> {
        let selection = Selection::new(self.resource, self.target.namespace, options, self.info.caller)?;
        // `kubectl get NAME --watch` and `wait` select by name: for them the name is part of the right.
        if selection.visible(self.info.registry).is_empty() {
            self.info.require(verb, &self.on(selection.name().unwrap_or_default()))?;
        }
        Ok(selection)
    }

    async fn create(&self, query: &str) -> Result<Answer, Status> {
        if self.target.name.is_some() || self.resource.namespaced && self.target.namespace.is_none() {
            return Err(Status::method_not_allowed());
        }
        self.info.require("create", &self.on(""))?;
        let (shape, body, options) =
            (self.shape(IncludeObject::default())?, self.body()?, WriteOptions::parse(query, "CreateOptions")?);
        let written = self.write(&options, |write| async move { write.create(body).await }).await?;
        let answer = shape.object(StatusCode::CREATED, &written.object, &written.warnings);
        Ok(answer.telling(&[&written.object], options.dry_run))
    }

    async fn update(&self, query: &str) -> Result<Answer, Status> {
        self.info.require("update", &self.on(self.name()))?;
        let (shape, body, options) =
            (self.shape(IncludeObject::default())?, self.body()?, WriteOptions::parse(query, "UpdateOptions")?);
        let name = self.name();
        let written = self.write(&options, |write| async move { write.update(name, body).await }).await?;
        let answer = shape.object(StatusCode::OK, &written.object, &written.warnings);
        Ok(answer.telling(&[&written.object], options.dry_run))
    }

    async fn patch(&self, query: &str) -> Result<Answer, Status> {
        self.info.require("patch", &self.on(self.name()))?;
        let (shape, options) = (self.shape(IncludeObject::default())?, WriteOptions::parse(query, "PatchOptions")?);
        let (name, kind) = (self.name(), self.resource.kind);
        let written = match patch::decode(self.content_type(), self.request.body(), kind, self.origin())? {
            patch::Request::Change(_) if options.force.is_some() => {
                let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
                return Err(Status::invalid_options("PatchOptions", vec![cause]));
            }
            patch::Request::Change(patch) => {
                let patch = &patch;
                self.write(&options, |write| async move { write.patch(name, patch).await }).await?
            }
            patch::Request::Apply(_) if options.field_manager.is_none() => {
                return Err(Status::field_manager_required());
            }
            patch::Request::Apply(body) => {
                self.write(&options, |write| async move { write.apply(name, body).await }).await?
            }
        };
        let code = if written.effect == Effect::Created { StatusCode::CREATED } else { StatusCode::OK };
        let answer = shape.object(code, &written.object, &written.warnings);
        Ok(answer.telling(&[&written.object], options.dry_run))
    }

    async fn delete(&self, query: &str) -> Result<Answer, Status> {
        self.info.require("delete", &self.on(self.name()))?;
        let (shape, (options, deletion)) = (self.shape(IncludeObject::default())?, self.deletion(query)?);
        let name = self.name();
        let deletion = &deletion;
        let written = self.write(&options, |write| async move { write.delete(name, deletion).await }).await?;
        let answer = match written.effect {
            Effect::Gone => Answer::deleted(self.resource, &written.object),
            Effect::Created | Effect::Changed => shape.object(StatusCode::OK, &written.object, &[]),
        };
        Ok(answer.telling(&[&written.object], options.dry_run))
    }

    async fn delete_collection(&self, query: &str) -> Result<Answer, Status> {
        self.info.require("deletecollection", &self.on(""))?;
        let (shape, read) = (self.shape(IncludeObject::default())?, ReadOptions::parse(query)?);
        let (options, deletion) = self.deletion(query)?;
        let selection = Selection::new(self.resource, self.target.namespace, &read, self.info.caller)?;
        let source = Source::new(self.resource, self.target.namespace);
        let mut page = list(self.info.registry, &source, &selection, &read)?;
        for item in &mut page.items {
            let (name, namespace) = (object::name(item).to_owned(), object::metadata(item, "namespace").to_owned());
            let namespace = self.resource.namespaced.then_some(namespace.as_str());
            let deletion = &deletion;
            let written =
                self.write(&options, |write| async move { Write { namespace, ..write }.delete(&name, deletion).await });
            match written.await {
                Ok(written) => *item = written.object,
                // Somebody else was faster.
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok(shape.list(&page).telling(&page.items.iter().collect::<Vec<_>>(), options.dry_run))
    }

    /// What a deletion asks for, in its query or in its body, and how.
    fn deletion(&self, query: &str) -> Result<(WriteOptions, Deletion), Status> {
        let mut options = WriteOptions::parse(query, "DeleteOptions")?;
        let mut deletion = Deletion { propagation: Propagation::of_query(query)?, ..Deletion::default() };
        if !self.request.body().is_empty() {
            let body = body::decode(self.content_type(), self.request.body(), "DeleteOptions", Origin::BuiltIn)?;
            let asked = Value::Object(body.object);
            options.set_dry_run(&asked["dryRun"])?;
            let read = Deletion::read(&asked)?;
            deletion = Deletion { propagation: read.propagation.or(deletion.propagation), ..read };
        }
        Ok((options, deletion))
    }

    fn body(&self) -> Result<Body, Status> {
        let mut body = body::decode(self.content_type(), self.request.body(), self.resource.kind, self.origin())?;
        // Typed clients leave them out where the path says them. Of custom resources kube-apiserver demands them.
        if self.resource.built_in {
            complete_type(&mut body.object, self.resource);
        }
        Ok(body)
    }

    fn content_type(&self) -> Option<&str> {
        self.request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
    }

    fn origin(&self) -> Origin {
        if self.resource.built_in { Origin::BuiltIn } else { Origin::Custom }
    }

    /// Lets `write` do one write for this request.
    async fn write<'a, T, F: Future<Output = T>>(
        &'a self,
        options: &'a WriteOptions,
        write: impl FnOnce(Write<'a>) -> F,
    ) -> T {
        // As kube-apiserver names clients that do not say who they are: by what comes before the first slash.
        let agent = self.request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let agent = agent.unwrap_or_default().split('/').next().unwrap_or_default();
        let Target { namespace, subresource, .. } = *self.target;
        write(Write {
            info: self.info,
            resource: self.resource,
            namespace,
            subresource,
            options,
            manager: options.field_manager.as_deref().unwrap_or(agent),
            now: self.now,
        })
        .await
    }
}

fn path(uri: &Uri) -> Result<Cow<'_, str>, Status> {
    percent_encoding::percent_decode_str(uri.path()).decode_utf8().map_err(|_| Status::no_such_path())
}

/// Which resource a request is about, and what is to be done with it.
fn resolve(
    method: &Method,
    uri: &Uri,
    path: &str,
    target: &Target<'_>,
    info: RequestInfo<'_>,
) -> Result<(&'static Resource, Verb), Status> {
    let Some(resource) = resource::find(target.group, target.version, target.resource) else {
        info.require_path(&method.as_str().to_lowercase(), path)?;
        return Err(Status::no_such_path());
    };
    let scoped = resource.namespaced || target.namespace.is_none();
    let known = target.subresource.is_none_or(|name| resource.subresource(name).is_some());
    if !scoped || !known {
        return Err(Status::no_such_path());
    }
    let watch = method == Method::GET && is_watch(uri.query().unwrap_or_default());
    let verb = Verb::of(method, target.name.is_some(), watch).ok_or_else(Status::method_not_allowed)?;
    let named = target.name.is_some() || !matches!(verb, Verb::Update | Verb::Patch);
    let served = match target.subresource {
        None => resource.has_verb(verb.as_str()),
        Some(name) => resource.subresource(name).is_some_and(|subresource| subresource.verbs.contains(&verb.as_str())),
    };
    if named && served { Ok((resource, verb)) } else { Err(Status::method_not_allowed()) }
}

/// The values of a header that may come several times.
fn joined(request: &Request<Bytes>, name: header::HeaderName) -> String {
    let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

fn complete_type(object: &mut Map<String, Value>, resource: &Resource) {
    for (field, known) in [("apiVersion", resource.api_version()), ("kind", resource.kind.to_owned())] {
        let given = object.entry(field).or_insert(Value::Null);
        if given.is_null() || given == "" {
            *given = known.into();
        }
    }
}

fn is_watch(query: &str) -> bool {
    ReadOptions::parse(query).is_ok_and(|options| options.watch)
        // What is wrong with the rest of a watch's query is said by the watch.
        || form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "watch" && (value == "true" || value == "1"))
}
