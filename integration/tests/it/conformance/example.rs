//! An example, as a process of its own.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use integration::process::{Launch, Process, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::python;

/// The key that the examples verify signatures with.
pub(crate) const KEY: &str = "sk_test_demo_key";

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// A running example. Dropping it kills it.
pub(crate) struct Example {
    program: Program,
    address: String,
    log: NamedTempFile,
}

enum Program {
    /// One of this workspace.
    Ours(Process),
    /// Any other.
    Foreign(Foreign),
}

struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Example {
    pub(crate) fn rust(database_url: &str) -> Self {
        let log = NamedTempFile::new().unwrap();
        let arguments = ["--listen", "127.0.0.1:0", "--database-url", database_url];
        let process = Process::start(&Launch {
            executable: env!("CARGO_BIN_EXE_demo").into(),
            role: Role::CustomerApp,
            arguments: &arguments.map(OsStr::new),
            environment: &[("ABLO_API_KEY", KEY)],
            log: log.path(),
        })
        .unwrap();
        Self {
            address: process.ready("listen").unwrap().to_owned(),
            program: Program::Ours(process),
            log,
        }
    }

    pub(crate) fn typescript(database_url: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(built_typescript().join("dist/server.js"));
        Self::start(&mut command, database_url)
    }

    pub(crate) fn python(database_url: &str) -> Self {
        let folder = Path::new(EXAMPLES).join("python");
        let requirements = folder.join("requirements.txt");
        let interpreter = python::environment("example-python", &requirements);
        let mut command = Command::new(interpreter);
        command
            .arg("serve.py")
            .current_dir(folder)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::start(&mut command, database_url)
    }

    fn start(command: &mut Command, database_url: &str) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut child = command
            .env("DATABASE_URL", database_url)
            .env("ABLO_API_KEY", KEY)
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let program = Foreign(child);
        let mut line = String::new();
        // It ends with the process, if that has nothing to say.
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let mut example = Self {
            address: String::new(),
            program: Program::Foreign(program),
            log,
        };
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("it said {line:?}; its log: {}", example.log()));
        ready["listen"]
            .as_str()
            .unwrap()
            .clone_into(&mut example.address);
        example
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/ablo", self.address)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(self) {
        match self.program {
            Program::Ours(process) => process.stop().unwrap(),
            Program::Foreign(mut foreign) => {
                let pid = Pid::from_raw(foreign.0.id().try_into().unwrap());
                kill(pid, Signal::SIGTERM).unwrap();
                foreign.0.wait().unwrap();
            }
        }
    }
}

/// The folder where the TypeScript example is built, with its pinned packages, installed once.
fn built_typescript() -> PathBuf {
    let source = Path::new(EXAMPLES).join("typescript");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example-typescript");
    fs::create_dir_all(folder.join("src")).unwrap();
    for file in [
        "package.json",
        "package-lock.json",
        "tsconfig.json",
        "tables.sql",
    ] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    for entry in fs::read_dir(source.join("src")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join("src").join(path.file_name().unwrap())).unwrap();
    }
    let wanted = fs::read_to_string(source.join("package-lock.json")).unwrap();
    let installed = folder.join("installed.txt");
    if !fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        let ci = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
        python::run(Command::new("npm").args(ci).current_dir(&folder));
        fs::write(installed, wanted).unwrap();
    }
    let build = ["run", "--silent", "build"];
    python::run(Command::new("npm").args(build).current_dir(&folder));
    folder
}
