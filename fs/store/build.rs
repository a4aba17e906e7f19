//! Compiles what of librados is reached through its C++ interface.

fn main() {
    println!("cargo::rerun-if-changed=src/rados/lend.cc");
    println!("cargo::rerun-if-changed=src/rados/receive.cc");
    if std::env::var_os("CARGO_FEATURE_RADOS").is_some() {
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .file("src/rados/lend.cc")
            .file("src/rados/receive.cc")
            .compile("yadokari_rados");
        println!("cargo::rustc-link-lib=rados");
    }
}
