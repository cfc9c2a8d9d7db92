use std::collections::BTreeSet;

use berth_testing::executor_contract;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::*;
use crate::testing::server;

fn machine() -> Value {
    json!({"phase": "Running", "id": "m1", "address": "10.0.3.17", "ssh": {"port": 22, "user": "root", "root": "/opt/berth", "hostKey": "k"}})
}

/// A Server whose machine runs.
fn running(revision: &str) -> Server {
    let mut server = server("web-0", revision, "Deploying", 1);
    server.metadata.uid = Some("0b3c4a1e".into());
    server.status.as_mut().unwrap().machine = Some(serde_json::from_value(machine()).unwrap());
    server
}

#[test]
fn a_request_says_everything_that_runs_and_where() {
    let mut server = running("v1");
    let app = server.spec.app.as_mut().unwrap();
    app.env = serde_json::from_value(json!([{"name": "LEVEL", "value": "info"}])).unwrap();
    app.restart = Some("1".into());
    server.spec.health_check = serde_json::from_value(json!({"httpGet": {"port": 8080}})).unwrap();
    let app = server.spec.app.clone().unwrap();
    let request = request(&server, 12, 2, 60).unwrap();
    let digest = server.spec.app_digest().unwrap();
    let expected = json!({
        "server": {"namespace": "default", "name": "web-0", "uid": "0b3c4a1e", "address": "10.0.3.17"},
        "application": {"name": app.name, "revision": "v1", "digest": digest, "command": app.command, "stopSeconds": 10,
            "artifact": {"url": app.artifact.url, "sha256": app.artifact.sha256},
            "env": {"LEVEL": "info", "PORT": "8080", "BERTH_MACHINE_ADDRESS": "10.0.3.17", "BERTH_APP_REVISION": "v1", "BERTH_RESTART": "1"}},
        "task": 12, "attempt": 2, "timeoutSeconds": 60,
    });
    assert_eq!(serde_json::to_value(&request).unwrap(), expected);
    assert_eq!(key(&request, 2), "0b3c4a1e-12-2");
    server.spec.app.as_mut().unwrap().env = serde_json::from_value(json!([{"name": "PORT", "value": "1"}])).unwrap();
    assert_eq!(super::request(&server, 12, 2, 60).unwrap().application.env["PORT"], "1");
    server.spec.app.as_mut().unwrap().baseline = Some("baseline-1".into());
    let restarted = super::request(&server, 12, 2, 60).unwrap().application;
    assert_eq!((restarted.env["BERTH_RESTART"].as_str(), restarted.revision.as_str()), ("baseline-1", "v1"));
    assert_ne!(restarted.digest, digest, "the deploy system has something to do");
    server.status.as_mut().unwrap().machine = None;
    assert!(super::request(&server, 12, 2, 60).unwrap_err().contains("address of the machine is not known"));
}

/// What a schema says that both sides have to agree on: without the words for people.
fn essence(schema: &Value) -> Value {
    let Some(object) = schema.as_object() else { return schema.clone() };
    let mut essence = Map::new();
    for (name, value) in object {
        let value = match name.as_str() {
            "properties" => {
                let fields = value.as_object().unwrap().iter();
                fields.map(|(field, schema)| (field.clone(), essence_of_field(schema))).collect::<Map<_, _>>().into()
            }
            "required" | "enum" => {
                value.as_array().unwrap().iter().map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
            }
            "additionalProperties" | "type" => value.clone(),
            "$ref" => value.as_str().unwrap().rsplit('/').next().unwrap().into(),
            _ => continue,
        };
        essence.insert(name.clone(), value);
    }
    essence.into()
}

/// An optional field may be absent, and is never null.
fn essence_of_field(schema: &Value) -> Value {
    let not_null = |parts: &Value| parts.as_array().unwrap().iter().find(|part| part["type"] != "null").cloned();
    let mut schema = schema.get("anyOf").and_then(not_null).unwrap_or_else(|| schema.clone());
    if let Some(first) = schema["type"].as_array().and_then(|types| types.first().cloned()) {
        schema["type"] = first;
    }
    if schema["enum"].as_array().is_some_and(|values| values.contains(&Value::Null)) {
        schema["enum"].as_array_mut().unwrap().retain(|value| !value.is_null());
    }
    essence(&schema)
}

fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

#[test]
fn the_schemas_of_the_contract_are_those_of_the_types() {
    let contract = executor_contract();
    let schemas = contract["components"]["schemas"].as_object().unwrap();
    let roots = [schema_of::<JobRequest>(), schema_of::<Job>(), schema_of::<JobError>()];
    let mut found = Map::new();
    for root in roots {
        found.extend(
            root["$defs"].as_object().into_iter().flatten().map(|(name, schema)| (name.clone(), schema.clone())),
        );
        found.insert(root["title"].as_str().unwrap().to_owned(), root);
    }
    // A field of this type has it in full.
    let format = found.remove("ArtifactFormat").unwrap();
    let declared = &schemas["JobArtifact"]["properties"]["format"]["enum"];
    let formats: Vec<&str> =
        format["oneOf"].as_array().unwrap().iter().map(|one| one["const"].as_str().unwrap_or_default()).collect();
    assert_eq!(*declared, json!(formats));
    found["JobArtifact"]["properties"]["format"] = schemas["JobArtifact"]["properties"]["format"].clone();
    let names = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(schemas));
    for (name, schema) in &found {
        assert_eq!(essence(schema), essence(&schemas[name]), "{name}");
    }
}

#[test]
fn the_examples_of_the_contract_are_understood_and_nothing_of_them_is_lost() {
    let contract = executor_contract();
    let put = &contract["paths"]["/jobs/{key}"]["put"]["requestBody"]["content"]["application/json"]["examples"];
    let responses = &contract["components"]["responses"];
    let of = |response: &str| responses[response]["content"]["application/json"]["examples"].clone();
    let values = |examples: &Value| -> Vec<Value> {
        examples.as_object().unwrap().values().map(|example| example["value"].clone()).collect()
    };
    let requests = values(put);
    let (jobs, errors) = (values(&of("Job")), values(&of("Refused")));
    assert!(!requests.is_empty() && jobs.len() >= 3 && !errors.is_empty());
    for example in requests {
        let request: JobRequest = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(serde_json::to_value(&request).unwrap(), example);
        let keys: Vec<&str> = jobs.iter().map(|job| job["key"].as_str().unwrap()).collect();
        assert!(keys.iter().all(|known| *known == key(&request, request.attempt)), "{keys:?}");
    }
    for example in jobs {
        let job: Job = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), example);
    }
    for example in errors {
        let error: JobError = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(serde_json::to_value(&error).unwrap(), example);
    }
}
