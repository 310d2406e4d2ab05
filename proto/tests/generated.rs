//! The committed code in `src/gen` is what the `.proto` files say.

use std::fs;
use std::path::Path;

use protox::prost::Message;

#[test]
fn the_committed_code_is_made_from_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/gen");
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gen");
    fs::create_dir_all(&fresh).expect("the target folder is ours to write");

    let files = ["coordinator", "log", "schemas", "data_sources", "admin"]
        .map(|name| root.join(format!("ablo/coordinator/v1/{name}.proto")));
    let descriptors = protox::compile(files, [root]).expect("the proto files compile");
    fs::write(fresh.join("descriptors.bin"), descriptors.encode_to_vec()).expect("writable");
    tonic_prost_build::configure()
        .out_dir(&fresh)
        .bytes(".")
        .compile_fds(descriptors)
        .expect("the descriptors generate");

    for name in ["ablo.coordinator.v1.rs", "descriptors.bin"] {
        let made = fs::read(fresh.join(name)).expect("just written");
        if std::env::var_os("UPDATE_PROTO").is_some() {
            fs::write(committed.join(name), made).expect("the source folder is writable");
        } else {
            let stands = fs::read(committed.join(name)).expect("the generated file is committed");
            assert!(
                made == stands,
                "{name} is stale: UPDATE_PROTO=1 cargo test -p proto"
            );
        }
    }
}
