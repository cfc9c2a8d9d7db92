//! ValidatingAdmissionPolicies, as shipped.
//!
//! A policy whose expressions the CEL library cannot compile is left out, and [`Policies::unsupported`] names it. Policies have bindings that
//! apply to everything; a policy with parameters is bound to all objects of its kind.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, ExecutionError, Program,
    extractors::This,
    objects::{Key, Value as CelValue},
};
use serde_json::{Map, Value, json};

use super::{
    admission::{Rule, Write},
    failure::Failure,
    rbac::{Action, Rbac},
    store::Stored,
};

/// The shipped manifests with policies.
const MANIFESTS: [&str; 3] = [
    include_str!("../../../deploy/base/gate-policies.yaml"),
    include_str!("../../../deploy/base/machine-class-use.yaml"),
    include_str!("../../../deploy/base/machine-classes.yaml"),
];

/// The policies.
pub(crate) struct Policies {
    policies: Vec<Policy>,
    unsupported: Vec<String>,
}

struct Policy {
    name: String,
    rules: Vec<Rule>,
    conditions: Vec<Program>,
    /// In the order in which they may use each other.
    variables: Vec<(String, Program)>,
    validations: Vec<Validation>,
    /// The kind of its parameters, if it has some.
    parameters: Option<String>,
}

struct Validation {
    expression: Program,
    message: Program,
    is_invalid: bool,
}

impl Policies {
    /// The shipped policies.
    pub(crate) fn shipped() -> Result<Self, String> {
        let (mut policies, mut unsupported) = (Vec::new(), Vec::new());
        for manifest in MANIFESTS {
            let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).map_err(|error| error.to_string())?;
            for document in documents.iter().filter(|document| document["kind"] == "ValidatingAdmissionPolicy") {
                match policy(document) {
                    Ok(policy) => policies.push(policy),
                    Err(error) => {
                        unsupported.push(format!("{}: {error}", text(&document["metadata"]["name"])));
                    }
                }
            }
        }
        Ok(Self { policies, unsupported })
    }

    /// The policies that are not evaluated, and why.
    pub(crate) fn unsupported(&self) -> &[String] {
        &self.unsupported
    }

    /// Refuses what a policy denies. `parameters` gives all objects of a kind.
    pub(super) fn check(
        &self,
        write: &Write<'_>,
        object: &Value,
        rbac: &Arc<Rbac>,
        parameters: impl Fn(&str) -> Vec<Arc<Stored>>,
    ) -> Result<(), Failure> {
        for policy in self.policies.iter().filter(|policy| policy.rules.iter().any(|rule| rule.is_for(write))) {
            let all = match &policy.parameters {
                Some(kind) => parameters(kind),
                None => vec![Stored::new(Value::Null)],
            };
            for parameter in all {
                let denied = policy.denies(write, object, &parameter, rbac);
                // What cannot be evaluated is refused, because failurePolicy is Fail.
                let (message, is_invalid) = match denied {
                    Ok(None) => continue,
                    Ok(Some(denial)) => denial,
                    Err(error) => (error, true),
                };
                let message = format!(
                    "{} {:?} is forbidden: ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: {message}",
                    write.resource.qualified_plural(),
                    write.name,
                    name = policy.name
                );
                return Err(if is_invalid {
                    Failure { code: 422, reason: "Invalid", message }
                } else {
                    Failure::forbidden(message)
                });
            }
        }
        Ok(())
    }
}

impl Policy {
    /// The message of the first validation that does not hold, and whether the write is invalid and not forbidden.
    fn denies(
        &self,
        write: &Write<'_>,
        object: &Value,
        parameter: &Value,
        rbac: &Arc<Rbac>,
    ) -> Result<Option<(String, bool)>, String> {
        let request = json!({
            "userInfo": {"username": write.user}, "operation": write.operation, "namespace": write.namespace,
            "name": write.name, "resource": {"group": write.resource.group, "resource": write.resource.plural},
        });
        let evaluate = |program: &Program, variables: &BTreeMap<String, CelValue>| {
            let mut context = Context::default();
            context.add_variable("object", object).map_err(|error| error.to_string())?;
            let old = write.old.map_or(&Value::Null, |old| old);
            context.add_variable("oldObject", old).map_err(|error| error.to_string())?;
            context.add_variable("params", parameter).map_err(|error| error.to_string())?;
            context.add_variable("request", &request).map_err(|error| error.to_string())?;
            context.add_variable("authorizer", &json!({})).map_err(|error| error.to_string())?;
            context.add_variable_from_value("variables", variables_value(variables));
            add_authorizer(&mut context, write.user, rbac)?;
            program.execute(&context).map_err(|error| error.to_string())
        };
        let none = BTreeMap::new();
        for condition in &self.conditions {
            if evaluate(condition, &none)? != CelValue::Bool(true) {
                return Ok(None);
            }
        }
        let mut variables = BTreeMap::new();
        for (name, program) in &self.variables {
            // A variable that cannot be computed is an error only for those who use it.
            if let Ok(value) = evaluate(program, &variables) {
                variables.insert(name.clone(), value);
            }
        }
        for validation in &self.validations {
            if evaluate(&validation.expression, &variables)? != CelValue::Bool(true) {
                let message = match evaluate(&validation.message, &variables)? {
                    CelValue::String(message) => message.to_string(),
                    other => format!("{other:?}"),
                };
                return Ok(Some((message.trim().to_owned(), validation.is_invalid)));
            }
        }
        Ok(None)
    }
}

fn variables_value(variables: &BTreeMap<String, CelValue>) -> CelValue {
    let map: HashMap<Key, CelValue> =
        variables.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
    CelValue::Map(map.into())
}

/// The functions of `authorizer`. What is asked for is collected in a map.
fn add_authorizer(context: &mut Context<'_, '_>, user: &str, rbac: &Arc<Rbac>) -> Result<(), String> {
    for field in ["group", "resource", "namespace"] {
        let ask = move |This(question): This<CelValue>, value: Arc<String>| with(&question, field, &value);
        context.add_function(field, ask).map_err(|error| error.to_string())?;
    }
    let (user, rbac) = (user.to_owned(), rbac.clone());
    let check = move |This(question): This<CelValue>, verb: Arc<String>| {
        let question = question.json().unwrap_or_default();
        let asked = |field: &str| question[field].as_str().unwrap_or_default();
        let action = Action {
            user: &user,
            verb: &verb,
            group: asked("group"),
            resource: asked("resource"),
            namespace: asked("namespace"),
            name: "",
        };
        rbac.allows(&action)
    };
    // The library has no list functions of Kubernetes.
    let join = |This(list): This<CelValue>, between: Arc<String>| {
        let list = list.json().unwrap_or_default();
        let texts: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        texts.join(&between)
    };
    context.add_function("join", join).map_err(|error| error.to_string())?;
    context.add_function("check", check).map_err(|error| error.to_string())?;
    context.add_function("allowed", |This(is_allowed): This<bool>| is_allowed).map_err(|error| error.to_string())
}

/// The question with one more field.
fn with(question: &CelValue, field: &str, value: &str) -> Result<CelValue, ExecutionError> {
    let mut fields: Map<String, Value> = match question.json() {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.insert(field.to_owned(), value.into());
    cel::to_value(&fields).map_err(|error| ExecutionError::function_error(field, error))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn compile(expression: &Value) -> Result<Program, String> {
    static ENV: LazyLock<Env> = LazyLock::new(Env::stdlib);
    ENV.compile(text(expression).trim()).map_err(|error| error.to_string())
}

fn policy(document: &Value) -> Result<Policy, String> {
    let spec = &document["spec"];
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    let rules = spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten();
    let validation = |validation: &Value| {
        let message = match &validation["messageExpression"] {
            Value::Null => Value::String(format!("{:?}", text(&validation["message"]).trim())),
            expression => expression.clone(),
        };
        Ok::<_, String>(Validation {
            expression: compile(&validation["expression"])?,
            message: compile(&message)?,
            is_invalid: validation["reason"] == "Invalid",
        })
    };
    let variable =
        |variable: &Value| Ok::<_, String>((text(&variable["name"]).to_owned(), compile(&variable["expression"])?));
    Ok(Policy {
        name: text(&document["metadata"]["name"]).to_owned(),
        rules: rules.cloned().map(Rule).collect(),
        conditions: list("matchConditions")
            .map(|condition| compile(&condition["expression"]))
            .collect::<Result<_, _>>()?,
        variables: list("variables").map(variable).collect::<Result<_, _>>()?,
        validations: list("validations").map(validation).collect::<Result<_, _>>()?,
        parameters: spec["paramKind"]["kind"].as_str().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resources::{Resource, built_in};

    const NOBODY: &str = "system:serviceaccount:default:nobody";

    fn kind(plural: &str) -> Resource {
        let any = built_in().remove(1);
        Resource { group: "berth.dev".into(), version: "v1alpha1".into(), plural: plural.into(), ..any }
    }

    /// What the policies say about an update by this user. `classes` are the MachineClasses.
    fn update(plural: &str, user: &str, old: &Value, new: &Value, classes: &[Value]) -> Result<(), Failure> {
        let (resource, uid, old) = (kind(plural), String::new(), Stored::new(old.clone()));
        let write = Write {
            resource: &resource,
            namespace: "default",
            name: "x",
            subresource: None,
            operation: "UPDATE",
            user,
            old: Some(&old),
            uid,
        };
        let rbac = Arc::new(Rbac::shipped().unwrap());
        let classes = || classes.iter().cloned().map(Stored::new).collect();
        Policies::shipped().unwrap().check(&write, new, &rbac, |_| classes())
    }

    #[test]
    fn all_shipped_policies_are_evaluated() {
        let policies = Policies::shipped().unwrap();
        assert!(policies.unsupported().is_empty(), "{:?}", policies.unsupported());
        assert_eq!(policies.policies.len(), 4);
    }

    #[test]
    fn a_gate_is_taken_away_by_who_may_approve() {
        let server = |gates: &[&str]| {
            let gates: Vec<Value> = gates.iter().map(|gate| json!({"before": gate})).collect();
            json!({"metadata": {"name": "x", "namespace": "default"}, "spec": {"gates": gates}})
        };
        let (both, one) = (server(&["DeployApp", "DestroyMachine"]), server(&["DeployApp"]));
        let refused = update("servers", NOBODY, &both, &one, &[]).unwrap_err();
        assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
        assert_eq!(
            refused.message,
            "servers.berth.dev \"x\" is forbidden: ValidatingAdmissionPolicy 'berth-gates' with binding 'berth-gates' denied \
             request: gates: removing the gate before DestroyMachine needs the right to create Approvals in this namespace \
             (ClusterRole berth-approver)"
        );
        update("servers", NOBODY, &one, &both, &[]).unwrap();
        update("servers", "ann", &both, &one, &[]).unwrap();
    }

    #[test]
    fn an_annotation_that_does_not_exist_is_as_good_as_an_empty_one() {
        let server = |annotations: Value| json!({"metadata": {"name": "x", "namespace": "default", "annotations": annotations}, "spec": {}});
        let (none, some) = (server(json!({})), server(json!({"berth.dev/set-generation": "2"})));
        let refused = update("servers", NOBODY, &none, &some, &[]).unwrap_err();
        assert!(refused.message.contains("it says which Approvals count for the Server"), "{}", refused.message);
        update("servers", NOBODY, &none, &server(json!({"other": "1"})), &[]).unwrap();
    }

    #[test]
    fn a_class_in_use_stays_where_it_is() {
        let class = |account: &str| {
            json!({"metadata": {"name": "x", "finalizers": ["berth.dev/in-use"]},
                   "spec": {"provider": "simulated", "parameters": {"account": account}}})
        };
        let refused = update("machineclasses", "ann", &class("a"), &class("b"), &[]).unwrap_err();
        assert_eq!((refused.code, refused.reason), (422, "Invalid"));
        assert!(refused.message.contains("spec.parameters.account: the class is in use"), "{}", refused.message);
        update("machineclasses", "ann", &class("a"), &class("a"), &[]).unwrap();
    }

    #[test]
    fn a_class_bounds_who_gets_its_machines() {
        let set = |class: &str| {
            json!({"metadata": {"name": "x", "namespace": "default"},
                   "spec": {"template": {"spec": {"machine": {"className": class}}}}})
        };
        let class =
            json!({"metadata": {"name": "small"}, "spec": {"provider": "simulated", "allowedNamespaces": ["other"]}});
        let refused =
            update("vmreplicasets", "ann", &set("large"), &set("small"), std::slice::from_ref(&class)).unwrap_err();
        assert!(refused.message.contains("gives no machines to namespace default"), "{}", refused.message);
        update("vmreplicasets", "ann", &set("large"), &set("tiny"), &[class]).unwrap();
    }
}
