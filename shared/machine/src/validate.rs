//! Validation of parameters that become file names, URLs or variables on a machine.

use crate::error::{MachineError, Result};

/// A file name made of letters, digits and `._+~-`, not beginning with a dot or a dash.
pub(crate) fn file_name(field: &str, value: &str) -> Result<()> {
    let starts_well = value.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = value.len() <= 128 && value.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c));
    if starts_well && fits {
        return Ok(());
    }
    Err(MachineError::invalid(
        field,
        format!("{value:?} must be 1 to 128 letters, digits or any of . _ + ~ - and begin with a letter or digit"),
    ))
}

/// A version: like a file name, and also with `:` (epochs).
pub(crate) fn version(field: &str, value: &str) -> Result<()> {
    file_name(field, &value.replace(':', "."))
}

/// A package manager's name for a package.
pub(crate) fn managed_name(value: &str) -> Result<()> {
    file_name("package name", value)
}

/// A version as package managers write it.
pub(crate) fn managed_version(value: &str) -> Result<()> {
    version("package version", value)
}

/// A SHA-256 digest: 64 hexadecimal digits in lower case.
pub(crate) fn sha256(field: &str, value: &str) -> Result<()> {
    if value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(MachineError::invalid(field, format!("{value:?} must be 64 hexadecimal digits in lower case")))
}

/// An absolute `http` or `https` URL without spaces.
pub(crate) fn url(field: &str, value: &str) -> Result<()> {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    if rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic())) {
        return Ok(());
    }
    Err(MachineError::invalid(field, format!("{value:?} must be an http:// or https:// URL without spaces")))
}

/// A folder or link on the machine, absolute or relative to the login's home.
pub(crate) fn path(field: &str, value: &str) -> Result<()> {
    let clean = value.chars().all(|c| c.is_ascii_alphanumeric() || "._+~/-".contains(c));
    let parts = || value.strip_prefix('/').unwrap_or(value).split('/');
    if clean && parts().all(|part| !part.is_empty() && part != "." && part != ".." && !part.starts_with(['-', '~'])) {
        return Ok(());
    }
    Err(MachineError::invalid(
        field,
        format!("{value:?} must be a path of letters, digits and . _ + ~ - between single slashes, without . or .."),
    ))
}

/// The name of a user on the machine.
pub(crate) fn user(field: &str, value: &str) -> Result<()> {
    let starts_well = value.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let fits =
        value.len() <= 32 && value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if starts_well && fits {
        return Ok(());
    }
    Err(MachineError::invalid(
        field,
        format!("{value:?} must be 1 to 32 small letters, digits, _ or -, and begin with a letter or _"),
    ))
}

/// The name of an environment variable that an application may set.
pub(crate) fn variable(field: &str, name: &str) -> Result<()> {
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(MachineError::invalid(
            field,
            format!("{name:?} must be letters, digits and _, and not begin with a digit"),
        ));
    }
    if name.starts_with("BERTH_") {
        return Err(MachineError::invalid(field, format!("{name:?}: names that begin with BERTH_ are set by Berth")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_paths_and_urls_that_could_escape_their_folder_are_refused() {
        for bad in ["", "..", ".x", "-rf", "a/b", "a b", "a\n", "ä"] {
            file_name("name", bad).unwrap_err();
        }
        for bad in ["", "/", "//x", "a/../b", "a//b", "./a", "a b", "$(x)", "-x", "~root", "a/"] {
            path("root", bad).unwrap_err();
        }
        for bad in ["", "ftp://x", "file:///etc/passwd", "http://", "http://a b", "-o x", "http://a\n"] {
            url("url", bad).unwrap_err();
        }
        for bad in ["", "1A", "A-B", "A=B", "BERTH_APP_REVISION"] {
            variable("env", bad).unwrap_err();
        }
        for bad in ["", "-x", "Web", "a b", "a'b", "1a"] {
            user("user", bad).unwrap_err();
        }
        sha256("sha256", &"A".repeat(64)).unwrap_err();
    }

    #[test]
    fn ordinary_values_are_accepted() {
        file_name("name", "openjdk-21.0+3~deb12").unwrap();
        version("version", "1:2.3-4").unwrap();
        path("root", "/opt/berth").unwrap();
        path("root", "opt/berth").unwrap();
        url("url", "http://127.0.0.1:80/a.tar.gz?x=1&y=%20").unwrap();
        variable("env", "JAVA_HOME").unwrap();
        user("user", "www-data").unwrap();
        sha256("sha256", &"0f".repeat(32)).unwrap();
    }
}
