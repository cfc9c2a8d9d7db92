//! How a MachineClass names an image.

/// Whether an image is named by fingerprint or by alias, and the name: 12 to 64 hexadecimal digits are (the beginning of)
/// a fingerprint, everything else is an alias.
pub(super) fn image_reference(image: &str) -> (&'static str, &str) {
    let is_fingerprint = (12..=64).contains(&image.len()) && image.chars().all(|c| c.is_ascii_hexdigit());
    (if is_fingerprint { "fingerprint" } else { "alias" }, image)
}
