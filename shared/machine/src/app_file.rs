//! Files with content from elsewhere, which an application finds in its folder.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    error::{MachineError, Result},
    operation::MachineOperation,
    validate,
};

/// Most bytes of all files of an application together: they are sent with each deployment, and a shell holds them in memory.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// A file that the application finds in its folder. Its content is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AppFile {
    /// Path, relative to the folder of the release.
    pub path: String,
    /// The content, which may be any bytes.
    pub content: Vec<u8>,
    /// Whether nobody but the user who runs the application may read it.
    pub secret: bool,
}

impl fmt::Debug for AppFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.content.len())
    }
}

/// Sends the files with the operation.
pub(crate) fn set_files(mut operation: MachineOperation, files: &[AppFile]) -> Result<MachineOperation> {
    let length = files.iter().map(|file| file.content.len()).sum::<usize>();
    if length > MAX_FILE_BYTES {
        let reason = format!(
            "they have {length} bytes together, at most {MAX_FILE_BYTES} may be; put large files into the artifact"
        );
        return Err(MachineError::invalid("app files", reason));
    }
    for (number, file) in files.iter().enumerate() {
        if file.path.starts_with('/') {
            return Err(MachineError::invalid("app files", format!("{:?} must be relative", file.path)));
        }
        validate::path("app files", &file.path)?;
        operation.set_numbered("FILE", number, "PATH", &file.path)?;
        operation.set_numbered("FILE", number, "MODE", if file.secret { "600" } else { "644" })?;
        operation.set_numbered("FILE", number, "CONTENT", &STANDARD.encode(&file.content))?;
    }
    operation.set("FILES", &files.len().to_string())
}
