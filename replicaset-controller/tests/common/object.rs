//! Objects from their declarations.

use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// An object of this kind with this declaration.
pub(crate) fn object<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(name: &str, spec: &Value) -> K {
    let (api_version, kind) = (K::api_version(&()), K::kind(&()));
    serde_json::from_value(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}))
        .unwrap()
}
