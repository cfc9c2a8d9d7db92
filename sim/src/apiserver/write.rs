//! Writes: create, update, patch, delete.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::{
    ApiServer,
    admission::Write,
    apply::apply,
    failure::{Failure, respond},
    metadata::{self, check_preconditions, has_finalizers, is_being_deleted, text},
    read::{answer, shown},
    request::{Call, Subresource, Target},
    resources::Resource,
    store::Stored,
};

/// How often a patch is computed again because somebody else has written in the meantime.
const PATCH_ATTEMPTS: usize = 5;

/// The type of a document that is sent to create, update, merge or delete.
const JSON: &str = "application/json";

impl ApiServer {
    pub(super) async fn create(&self, call: &Call, target: &Target) -> Result<Response<Body>, Failure> {
        let resource = self.resource(target);
        let mut object = parse(&call.body)?;
        check_kind(resource, &object)?;
        metadata::remove_system_fields(&mut object);
        let name = self.name_new(resource, &mut object)?;
        if resource.is_namespaced {
            object["metadata"]["namespace"] = target.namespace.clone().into();
            self.check_namespace(&target.namespace)?;
        }
        complete(resource, &mut object);
        let mut object = self.admit(call, target, &name, "CREATE", None, object).await?;
        if resource.has_status {
            object.as_object_mut().map(|fields| fields.remove("status"));
        }
        complete(resource, &mut object);
        check(resource, &object, None)?;
        metadata::begin(resource, &mut object, self.next_uid(), self.now());
        let (key, mut store) = (target.key(&name), self.0.store.lock());
        if store.get(&key).is_some() {
            return Err(Failure::already_exists(resource, &name));
        }
        store.set_author(&call.user);
        let stored = store.put(&key, object);
        Ok(answer(201, call.view, resource, None, &stored))
    }

    pub(super) async fn update(&self, call: &Call, target: &Target, name: &str) -> Result<Response<Body>, Failure> {
        let resource = self.resource(target);
        let sent = parse(&call.body)?;
        let old = self.stored(target, name)?;
        if resource.schema.is_some() && text(&sent, "resourceVersion").is_none() {
            let missing = "metadata.resourceVersion: Invalid value: 0: must be specified for an update".to_owned();
            return Err(Failure::invalid(resource, name, &[missing]));
        }
        check_preconditions(resource, &old, text(&sent, "uid"), text(&sent, "resourceVersion"))?;
        let written = self.write(call, target, name, &old, sent).await?;
        let modified = "the object has been modified; please apply your changes to the latest version and try again";
        written.ok_or_else(|| Failure::conflict(resource, name, modified))
    }

    pub(super) async fn patch(&self, call: &Call, target: &Target, name: &str) -> Result<Response<Body>, Failure> {
        let resource = self.resource(target);
        for _ in 0..PATCH_ATTEMPTS {
            let old = match self.stored(target, name) {
                Err(_) if is_apply(call) => return self.create_applied(call, target, name).await,
                found => found?,
            };
            let sent = self.patched(call, target, &old)?;
            check_preconditions(resource, &old, text(&sent, "uid"), text(&sent, "resourceVersion"))?;
            if let Some(response) = self.write(call, target, name, &old, sent).await? {
                return Ok(response);
            }
        }
        let modified = "the object has been modified; please apply your changes to the latest version and try again";
        Err(Failure::conflict(resource, name, modified))
    }

    /// The object after the patch, as the client means it.
    fn patched(&self, call: &Call, target: &Target, old: &Value) -> Result<Value, Failure> {
        let resource = self.resource(target);
        // Whatever the client wants to see of the result, it patches the whole object.
        let mut new = shown(resource, target.subresource, old);
        match call.content_type.as_str() {
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_slice(&call.body)
                    .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
                json_patch::patch(&mut new, &patch).map_err(|error| Failure::patch_does_not_apply(&error))?;
            }
            // For built-in kinds a strategic merge of objects without lists is the same.
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                json_patch::merge(&mut new, &parse(&call.body)?);
            }
            _ if is_apply(call) => {
                let document: Value = serde_saphyr::from_slice(&call.body)
                    .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
                let manager = call.parameters.text("fieldManager");
                let manager =
                    manager.ok_or_else(|| Failure::bad_request("fieldManager is required for apply patch"))?;
                if !call.parameters.flag("force") {
                    return Err(Failure::bad_request("server-side apply without force is not simulated"));
                }
                new = apply(resource, old, &document, manager, self.now());
            }
            other => return Err(Failure::unsupported_patch(other)),
        }
        Ok(new)
    }

    /// An apply of an object that does not exist creates it.
    async fn create_applied(&self, call: &Call, target: &Target, name: &str) -> Result<Response<Body>, Failure> {
        let resource = self.resource(target);
        let nothing = json!({"metadata": {}});
        let mut object = self.patched(call, target, &nothing)?;
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
        object["metadata"]["name"] = name.into();
        let fields = object["metadata"]["managedFields"].take();
        let create = Call { body: object.to_string().into_bytes(), ..call.clone() };
        let created = self.create(&create, target).await?;
        let (key, mut store) = (target.key(name), self.0.store.lock());
        let Some(stored) = store.get(&key) else { return Ok(created) };
        let mut object = (**stored).clone();
        object["metadata"]["managedFields"] = fields;
        let stored = store.put(&key, object);
        Ok(answer(201, call.view, resource, None, &stored))
    }

    /// Writes what the client means, unless the object has changed since `old`: then nothing.
    async fn write(
        &self,
        call: &Call,
        target: &Target,
        name: &str,
        old: &Arc<Stored>,
        sent: Value,
    ) -> Result<Option<Response<Body>>, Failure> {
        let resource = self.resource(target);
        let claimant = claimant(&sent);
        let mut new = merged(resource, target.subresource, old, sent);
        complete(resource, &mut new);
        let mut new = self.admit(call, target, name, "UPDATE", Some(old), new).await?;
        keep_other_part(resource, target.subresource, old, &mut new);
        complete(resource, &mut new);
        metadata::carry_over(resource, old, &mut new);
        metadata::check_finalizers(resource, old, &new)?;
        check(resource, &new, Some(old))?;
        let (key, mut store) = (target.key(name), self.0.store.lock());
        if store.get(&key).is_none_or(|now| !Arc::ptr_eq(&now, old)) {
            return Ok(None);
        }
        store.set_author(&call.user);
        if is_being_deleted(&new) && !has_finalizers(&new) {
            let last = store.remove_as(&key, new);
            return Ok(Some(answer(200, call.view, resource, target.subresource, &last)));
        }
        let stored = store.put(&key, new);
        if let Some(holder) = claimant {
            store.claimed(&key, &holder);
        }
        Ok(Some(answer(200, call.view, resource, target.subresource, &stored)))
    }

    pub(super) fn delete(&self, call: &Call, target: &Target, name: &str) -> Result<Response<Body>, Failure> {
        let resource = self.resource(target);
        let options = if call.body.is_empty() { Value::Null } else { parse(&call.body)? };
        let policy = options["propagationPolicy"].as_str().or_else(|| call.parameters.text("propagationPolicy"));
        if policy.is_some_and(|policy| policy != "Background") {
            return Err(Failure::bad_request("only propagationPolicy Background is simulated"));
        }
        let (key, mut store) = (target.key(name), self.0.store.lock());
        store.set_author(&call.user);
        let old = store.get(&key).ok_or_else(|| Failure::no_such_object(resource, name))?;
        let precondition = |field: &str| options["preconditions"][field].as_str();
        check_preconditions(resource, &old, precondition("uid"), precondition("resourceVersion"))?;
        if has_finalizers(&old) {
            if is_being_deleted(&old) {
                return Ok(answer(200, call.view, resource, None, &old));
            }
            let mut new = (**old).clone();
            metadata::request_deletion(resource, &mut new, self.now());
            let stored = store.put(&key, new);
            return Ok(answer(200, call.view, resource, None, &stored));
        }
        store.remove(&key);
        let details =
            json!({"name": name, "group": resource.group, "kind": resource.plural, "uid": old["metadata"]["uid"]});
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Ok(respond(200, &status))
    }

    async fn admit(
        &self,
        call: &Call,
        target: &Target,
        name: &str,
        operation: &'static str,
        old: Option<&Stored>,
        object: Value,
    ) -> Result<Value, Failure> {
        // Without a webhook nothing of Berth is installed but its CRDs.
        let Some(webhooks) = &self.0.webhooks else { return Ok(object) };
        let write = Write {
            resource: self.resource(target),
            namespace: &target.namespace,
            name,
            subresource: target.subresource,
            operation,
            user: &call.user,
            old,
            uid: self.next_uid(),
        };
        let object = webhooks.mutate(&write, object).await?;
        self.0.policies.check(&write, &object, &self.0.rbac, |kind| self.all_of_kind(kind))?;
        Ok(object)
    }

    /// The name of a new object, made from `generateName` if there is none.
    fn name_new(&self, resource: &Resource, object: &mut Value) -> Result<String, Failure> {
        if text(object, "name").is_none() {
            let Some(prefix) = text(object, "generateName") else {
                let missing = "metadata.name: Required value: name or generateName is required".to_owned();
                return Err(Failure::invalid(resource, "", &[missing]));
            };
            let uid = self.next_uid();
            object["metadata"]["name"] = format!("{prefix}{}", &uid[uid.len() - 5..]).into();
        }
        let name = text(object, "name").unwrap_or_default().to_owned();
        metadata::check_name(resource, &name)?;
        Ok(name)
    }
}

fn is_apply(call: &Call) -> bool {
    call.content_type.starts_with("application/apply-patch")
}

/// Who claims a Server's lock with this write. The webhook removes the claim.
fn claimant(sent: &Value) -> Option<String> {
    let claim = &sent["status"]["claim"];
    claim["durationSeconds"].as_i64().filter(|seconds| *seconds > 0)?;
    claim["holder"].as_str().map(str::to_owned)
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    let document: Result<Value, _> = serde_json::from_slice(body);
    let document = document.map_err(|error| Failure::bad_request(format!("the body is not {JSON}: {error}")))?;
    if document.is_object() { Ok(document) } else { Err(Failure::bad_request("the body is no object")) }
}

/// The whole object that a write to a subresource means.
fn merged(resource: &Resource, subresource: Option<Subresource>, old: &Value, sent: Value) -> Value {
    match (subresource, &resource.scale) {
        (Some(Subresource::Scale), Some(paths)) => {
            let mut new = old.clone();
            if let Some(replicas) = new.pointer_mut(&paths.replicas) {
                *replicas = sent["spec"]["replicas"].clone();
            }
            new
        }
        _ => sent,
    }
}

/// A write to the object leaves its status as it is, and a write to its status leaves everything else.
fn keep_other_part(resource: &Resource, subresource: Option<Subresource>, old: &Value, new: &mut Value) {
    if subresource == Some(Subresource::Status) {
        let status = take_field(new, "status");
        let managed = new.get_mut("metadata").and_then(|metadata| take_field(metadata, "managedFields"));
        // The status is the largest part of most objects: it is not copied to be thrown away.
        *new = old
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, _)| *field != "status")
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        set_field(new, "status", status);
        if let Some(metadata) = new.get_mut("metadata") {
            set_field(metadata, "managedFields", managed);
        }
    } else if resource.has_status {
        set_field(new, "status", old.get("status").cloned());
    }
}

fn take_field(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut().and_then(|fields| fields.remove(field))
}

/// Sets the field, or removes it if there is no value.
fn set_field(object: &mut Value, field: &str, value: Option<Value>) {
    match value {
        Some(value) => object[field] = value,
        None => drop(object.as_object_mut().map(|fields| fields.remove(field))),
    }
}

/// Removes what the schema does not know, and adds defaults.
fn complete(resource: &Resource, object: &mut Value) {
    if let Some(schema) = &resource.schema {
        schema.complete(object);
    }
}

/// Refuses a document of another kind.
fn check_kind(resource: &Resource, object: &Value) -> Result<(), Failure> {
    let kind = object["kind"].as_str().unwrap_or_default();
    if kind == resource.kind {
        return Ok(());
    }
    let name = text(object, "name").unwrap_or_default();
    Err(Failure::invalid(resource, name, &[format!("kind: Invalid value: {kind:?}: must be {}", resource.kind)]))
}

fn check(resource: &Resource, new: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let Some(schema) = &resource.schema else { return Ok(()) };
    let errors = schema.errors(new, old);
    let name = text(new, "name").unwrap_or_default();
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid(resource, name, &errors)) }
}
