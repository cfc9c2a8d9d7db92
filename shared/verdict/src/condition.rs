//! A condition on one number, such as `< 0.01`.

use std::{fmt, str::FromStr};

use berth_core::api::CheckVerdict;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    NotEqual,
}

/// Operators by their texts. Of two with the same beginning, the longer comes first.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

/// What a number has to be: an operator and a decimal number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    operator: Operator,
    bound: f64,
}

impl Condition {
    /// Whether the number is as it has to be. A value that is no number says nothing.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "`==` and `!=` are for whole numbers, such as how many targets are up")]
    pub fn judge(&self, value: f64) -> CheckVerdict {
        if value.is_nan() {
            return CheckVerdict::Inconclusive;
        }
        let holds = match self.operator {
            Operator::Less => value < self.bound,
            Operator::AtMost => value <= self.bound,
            Operator::Greater => value > self.bound,
            Operator::AtLeast => value >= self.bound,
            Operator::Equal => value == self.bound,
            Operator::NotEqual => value != self.bound,
        };
        if holds { CheckVerdict::Pass } else { CheckVerdict::Fail }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no condition: write one of < <= > >= == != and a number, such as `< 0.01`");
        let found = OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, text.trim().strip_prefix(sign)?)));
        let (operator, bound) = found.ok_or_else(wrong)?;
        let bound = bound.trim().parse().ok().filter(|bound: &f64| bound.is_finite()).ok_or_else(wrong)?;
        Ok(Self { operator, bound })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator).map_or("", |(sign, _)| sign);
        write!(f, "{sign} {}", self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operator_holds_where_it_says() {
        use CheckVerdict::{Fail, Pass};
        for (text, below, at, above) in [
            ("< 1.5", Pass, Fail, Fail),
            ("<= 1.5", Pass, Pass, Fail),
            ("> 1.5", Fail, Fail, Pass),
            (">=1.5", Fail, Pass, Pass),
            (" == 1.5 ", Fail, Pass, Fail),
            ("!= 1.5", Pass, Fail, Pass),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!([1.0, 1.5, 2.0].map(|value| condition.judge(value)), [below, at, above], "{text}");
            assert_eq!(condition.to_string().parse(), Ok(condition));
        }
        assert_eq!("< 1".parse::<Condition>().unwrap().judge(f64::NAN), CheckVerdict::Inconclusive);
        assert_eq!("< -1e-3".parse::<Condition>().unwrap().judge(-0.002), Pass);
    }

    #[test]
    fn what_is_no_condition_is_refused_in_words() {
        for text in ["", "1", "<", "< x", "=< 1", "<> 1", "< NaN", "< inf", "< 1 2", "~ 1"] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.contains("is no condition: write one of <"), "{text}: {error}");
        }
    }
}
