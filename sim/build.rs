//! Lets the programs of the simulation define `getrandom` for the libraries that look it up at run time, too.

fn main() {
    println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=getrandom");
    println!("cargo:rerun-if-changed=build.rs");
}
