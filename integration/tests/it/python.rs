//! A gRPC client and an endpoint in another language, each with the public libraries of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use integration::node::{Node, temporary_folder};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");

#[tokio::test]
async fn python_commits_loads_and_lists_and_verifies_what_the_coordinator_signed() {
    let requirements = Path::new(SCRIPTS).join("requirements.txt");
    let python = environment("python", &requirements);
    let stubs = stubs(&python);
    let folder = temporary_folder("coordinator-python-").unwrap();
    let node = Node::start(env!("CARGO_BIN_EXE_demo").into(), folder.path()).unwrap();
    let output = Command::new(&python)
        .arg(Path::new(SCRIPTS).join("client.py"))
        .args([node.address().unwrap(), node.key().unwrap()])
        .env("PYTHONPATH", &stubs)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let output = succeeded(&output, "client.py");
    assert_eq!(output.trim(), "python: ok");
    node.stop().await.unwrap();
}

/// A virtual environment with pinned requirements, made once; its interpreter.
pub(crate) fn environment(name: &str, requirements: &Path) -> PathBuf {
    let wanted = fs::read_to_string(requirements).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = folder.join("bin/python");
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder));
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ];
    run(Command::new(&python).args(pip).arg(requirements));
    fs::write(installed, wanted).unwrap();
    python
}

/// The folder of the code that is made from the `.proto` files.
fn stubs(python: &Path) -> PathBuf {
    let stubs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-stubs");
    fs::create_dir_all(&stubs).unwrap();
    let package = Path::new(PROTO).join("ablo/coordinator/v1");
    let mut protos: Vec<_> = fs::read_dir(package)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    protos.sort();
    run(Command::new(python)
        .args(["-m", "grpc_tools.protoc"])
        .arg(format!("-I{PROTO}"))
        .arg(format!("--python_out={}", stubs.display()))
        .arg(format!("--grpc_python_out={}", stubs.display()))
        .args(protos));
    stubs
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    succeeded(&output, &format!("{command:?}"));
}

fn succeeded(output: &Output, what: &str) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}
