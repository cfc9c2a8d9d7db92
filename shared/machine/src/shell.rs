//! Quoting for POSIX shells.

/// The value in single quotes, safe for every POSIX shell.
pub(crate) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_shell_reads_back_every_quoted_value() {
        for value in ["", "plain", "it's", "''", "$(id) `id` \\ \"x\" *", "two\nlines\n", "ü — 漢", "-n", "!!"] {
            let script = "eval \"$(cat)\"; printf %s. \"$V\"";
            let mut child = std::process::Command::new("sh")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut stdin, format!("V={}\n", quote(value)).as_bytes()).unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}."));
        }
    }
}
