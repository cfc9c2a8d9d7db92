//! An object that may be undecodable.
//!
//! Own type instead of kube's `DeserializeGuard`, which decodes into a generic value and clones it before it decodes the object:
//! that costs several times the memory and time of decoding the text, for every object of a list.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{PartialObjectMeta, error_boundary::InvalidObject},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::value::RawValue;

/// An object, or its metadata and the reason why it cannot be decoded.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    /// Works only with JSON text, from which the object is decoded directly.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str(text.get()).map(|object| Self(Ok(object))).or_else(|error| {
            let partial: PartialObjectMeta = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
            // The message ends with a position in the text, which nobody sees.
            let error = error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
            Ok(Self(Err(InvalidObject { error, metadata: partial.metadata })))
        })
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{ResourceExt as _, core::WatchEvent};

    use super::*;

    fn event(object: &str) -> Result<Guarded<ConfigMap>, serde_json::Error> {
        let text = format!(r#"{{"type":"ADDED","object":{object}}}"#);
        match serde_json::from_str(&text)? {
            WatchEvent::Added(object) => Ok(object),
            event => panic!("{event:?}"),
        }
    }

    #[test]
    fn an_object_is_decoded_from_a_watch_event() {
        let object = event(r#"{"metadata":{"name":"a","namespace":"n"},"data":{"k":"v \u00e9"}}"#).unwrap();
        assert_eq!(object.name_any(), "a");
        assert_eq!(object.0.unwrap().data.unwrap()["k"], "v é");
    }

    #[test]
    fn an_undecodable_object_keeps_its_metadata_and_the_error() {
        let object = event(r#"{"metadata":{"name":"a","namespace":"n"},"data":[1]}"#).unwrap();
        assert_eq!((object.name_any().as_str(), object.namespace().as_deref()), ("a", Some("n")));
        assert!(object.0.unwrap_err().error.contains("invalid type"));
    }

    #[test]
    fn an_object_without_metadata_is_an_error() {
        assert!(event(r#"{"metadata":[]}"#).is_err());
        assert!(event("7").is_err());
    }
}
