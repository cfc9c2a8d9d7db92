//! What Prometheus answers to a query.

use serde::Deserialize;

/// The numbers that a query has led to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// One number without labels.
    Scalar(f64),
    /// Any number of series, each with its newest number.
    Series(Vec<Sample>),
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// The labels `server` and `namespace`, which monitor-controller gives to everything that Prometheus scrapes from a Server.
    pub(super) server: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) value: f64,
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope {
    Success {
        data: Data,
    },
    Error {
        #[serde(default, rename = "errorType")]
        kind: String,
        #[serde(default)]
        error: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
    Scalar((f64, String)),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: Labels,
    value: (f64, String),
}

#[derive(Default, Deserialize)]
struct Labels {
    server: Option<String>,
    namespace: Option<String>,
}

/// The answer in this body, or what is wrong in words.
pub(super) fn parse(code: u16, body: &[u8]) -> Result<Answer, String> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| not_understood(code))?;
    match envelope {
        Envelope::Success { data: Data::Vector(series) } => {
            let sample = |series: Series| {
                let Labels { server, namespace } = series.metric;
                Ok(Sample { server, namespace, value: number(&series.value.1)? })
            };
            series.into_iter().map(sample).collect::<Result<_, _>>().map(Answer::Series)
        }
        Envelope::Success { data: Data::Scalar((_, value)) } => number(&value).map(Answer::Scalar),
        Envelope::Success { data: Data::Matrix(_) } => {
            Err("the query returns numbers over a time, and one for each series is needed: `increase(x[5m])` instead of `x[5m]`".into())
        }
        Envelope::Success { data: Data::String(_) } => Err("the query returns a text, and a number is needed".into()),
        Envelope::Error { kind, error } => Err(format!("it refuses the query ({kind}): {error}")),
    }
}

/// What is wrong with an answer that is not of Prometheus' HTTP API.
pub(super) fn not_understood(code: u16) -> String {
    match code {
        401 | 403 => format!("it refuses the credentials (status {code}): see spec.credentials of the MonitoringClass"),
        200..=299 => {
            "its answer is not that of Prometheus' HTTP API: see spec.address of the MonitoringClass".to_owned()
        }
        _ => format!("it answers with status {code}: see spec.address of the MonitoringClass"),
    }
}

/// Prometheus writes numbers as texts, such as `1.5`, `NaN` and `+Inf`.
fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_answers_is_read() {
        let vector = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"server":"web-0","job":"x"},"value":[1.5,"2.5"]},{"metric":{},"value":[1,"+Inf"]}]}}"#;
        let sample = |server: Option<&str>, value| Sample { server: server.map(Into::into), namespace: None, value };
        assert_eq!(
            parse(200, vector),
            Ok(Answer::Series(vec![sample(Some("web-0"), 2.5), sample(None, f64::INFINITY)]))
        );
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"1"]}}"#;
        assert_eq!(parse(200, scalar), Ok(Answer::Scalar(1.0)));
    }

    #[test]
    fn whatever_else_is_answered_is_said_in_words() {
        for (code, body, words) in [
            (
                400,
                r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error: no )"}"#,
                "refuses the query (bad_data): 1:5: parse error",
            ),
            (200, r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, "numbers over a time"),
            (200, r#"{"status":"success","data":{"resultType":"string","result":[1,"x"]}}"#, "returns a text"),
            (200, "<html>", "is not that of Prometheus' HTTP API"),
            (401, "Unauthorized", "refuses the credentials"),
            (404, "404 page not found", "status 404: see spec.address"),
        ] {
            let error = parse(code, body.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
    }
}
