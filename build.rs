//! Compiles the programs that clusterd carries (`embedded/`) into static executables for images.
//!
//! Why here: an image that is built from source with the program itself needs no registry, no
//! download and no binary in the repository.

use std::path::Path;
use std::process::Command;

fn main() {
    let base = ["--edition=2024", "--crate-type=bin", "-Copt-level=s", "-Cstrip=symbols"];
    let pause = [
        "-Cpanic=abort",
        "-Crelocation-model=static",
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-static",
    ];
    compile("pause", &[&base[..], &pause].concat());
    let sample = ["-Cpanic=abort", "-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
    compile("sample", &[&base[..], &sample].concat());
}

/// The machine that builds is the one that runs: images are for its architecture.
fn compile(name: &str, options: &[&str]) {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let source = format!("embedded/{name}/main.rs");
    println!("cargo::rerun-if-changed={source}");
    let output = Path::new(&variable("OUT_DIR")).join(name);
    let status = Command::new(variable("RUSTC"))
        .args(options)
        .args(["--target", &variable("TARGET"), "--crate-name", name, "-o"])
        .arg(&output)
        .arg(&source)
        .status();
    match status {
        Ok(status) if status.success() => {}
        other => panic!("compiling {source}: {other:?}"),
    }
}
