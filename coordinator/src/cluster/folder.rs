//! The cluster's folder: `data` (Postgres's own), `lock`, `server.log`, and `socket` where its path
//! is short enough.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::Account;
use super::binaries::Binaries;
use super::{ClusterError, Durability, PORT};

/// `sockaddr_un` holds 108 bytes on Linux and 104 on BSDs and macOS, the ending NUL among them.
const SOCKET_PATH_LIMIT: usize = 103;
const STALE_PATIENCE: [(Signal, Duration); 2] = [
    (Signal::SIGINT, Duration::from_secs(30)),
    (Signal::SIGQUIT, Duration::from_secs(10)),
];
const STALE_PAUSE: Duration = Duration::from_millis(20);
const LOG_END: usize = 2_000;

/// An open folder; no other process can open it until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    socket: PathBuf,
    /// Held, never read: its lock ends with this process, however that dies.
    _lock: File,
}

impl Folder {
    /// Makes the folder unless it exists, gives it to the account, and locks it.
    pub(super) fn open(path: &Path, account: &Account) -> Result<Self, ClusterError> {
        fs::create_dir_all(path).map_err(ClusterError::io("make", path))?;
        let path = path
            .canonicalize()
            .map_err(ClusterError::io("find", path))?;
        own(&path, account).map_err(ClusterError::io("take", &path))?;
        let lock = lock(&path)?;
        check_reach(&path, account)?;
        let socket = socket_folder(&path);
        make_private(&socket, account).map_err(ClusterError::io("make", &socket))?;
        Ok(Self {
            path,
            socket,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The major version that made the data; absent when there is none.
    pub(super) fn version(&self) -> Result<Option<u32>, ClusterError> {
        let path = self.data().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(version) => version
                .trim()
                .parse()
                .map(Some)
                .map_err(|error| ClusterError::io("read", &path)(io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClusterError::io("read", &path)(error)),
        }
    }

    /// Makes the data: under another name first, so that a crash leaves no half-made cluster.
    pub(super) fn init(
        &self,
        binaries: &Binaries,
        account: &Account,
        user: &str,
        durability: Durability,
    ) -> Result<(), ClusterError> {
        let unfinished = self.path.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(ClusterError::io("remove", &unfinished))?;
        }
        let mut command = account.command(binaries.initdb(), &self.path, true);
        command
            .arg("-D")
            .arg(&unfinished)
            .arg(format!("--username={user}"));
        command.args(["--auth=trust", "--encoding=UTF8", "--locale=C"]);
        if durability == Durability::Fast {
            command.arg("--no-sync");
        }
        let output = command
            .output()
            .map_err(ClusterError::io("start", &binaries.initdb()))?;
        if !output.status.success() {
            let output = [output.stdout, output.stderr].concat();
            return Err(ClusterError::Init {
                output: String::from_utf8_lossy(&output).into(),
            });
        }
        fs::rename(&unfinished, self.data()).map_err(ClusterError::io("rename", &unfinished))
    }

    /// Stops the server that a process left behind when it was killed, and removes a file that
    /// claims there is one when there is none.
    pub(super) fn stop_stale_server(&self) -> Result<(), ClusterError> {
        let path = self.data().join("postmaster.pid");
        let claimed = match fs::read_to_string(&path) {
            Ok(claimed) => claimed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ClusterError::io("read", &path)(error)),
        };
        let first = claimed.lines().next().unwrap_or_default();
        if let Ok(pid) = first.trim().parse::<i32>() {
            for (signal, patience) in STALE_PATIENCE {
                if self.stops_by(pid, signal, patience) {
                    return remove_if_there(&path);
                }
            }
            return Err(ClusterError::StaleServer {
                folder: self.path.clone(),
                pid,
            });
        }
        remove_if_there(&path)
    }

    /// A new log; the one before is kept beside it.
    pub(super) fn new_log(&self) -> Result<File, ClusterError> {
        let path = self.log();
        match fs::rename(&path, self.path.join("server.previous.log")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ClusterError::io("rename", &path)(error));
            }
            _ => {}
        }
        self.same_log()
    }

    /// The log, to be appended to.
    pub(super) fn same_log(&self) -> Result<File, ClusterError> {
        let path = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(ClusterError::io("open", &path))
    }

    /// The last lines of the log, for a person.
    pub(super) fn log_end(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let end = &log[log.len().saturating_sub(LOG_END)..];
        String::from_utf8_lossy(end).trim().to_owned()
    }

    fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    fn stops_by(&self, pid: i32, signal: Signal, patience: Duration) -> bool {
        if !self.is_server(pid) {
            return true;
        }
        tracing::warn!("stopping the PostgreSQL (process {pid}) that an earlier process left");
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            tracing::debug!("no {signal} for process {pid}: {error}");
        }
        let until = Instant::now() + patience;
        while self.is_server(pid) {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(STALE_PAUSE);
        }
        true
    }

    /// Whether a process is this cluster's server. Postgres works inside its data folder, so its
    /// number alone, which may be another process's by now, need not be trusted where `/proc` is.
    fn is_server(&self, pid: i32) -> bool {
        if Path::new("/proc/self/cwd").exists() {
            return fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.data());
        }
        kill(Pid::from_raw(pid), None).is_ok()
    }
}

impl Drop for Folder {
    /// Leaves nothing behind outside the folder.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.socket) {
            tracing::debug!("{} stays: {error}", self.socket.display());
        }
    }
}

fn lock(folder: &Path) -> Result<File, ClusterError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(ClusterError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ClusterError::InUse {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(ClusterError::io("lock", &path)(error)),
    }
}

/// Postgres refuses a data folder that others can read.
fn own(path: &Path, account: &Account) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    match account.owner() {
        Some((uid, gid)) => chown(path, Some(uid.as_raw()), Some(gid.as_raw())),
        None => Ok(()),
    }
}

fn check_reach(path: &Path, account: &Account) -> Result<(), ClusterError> {
    let Some(_) = account.owner() else {
        return Ok(());
    };
    let reached = account
        .command("test", Path::new("/"), false)
        .arg("-w")
        .arg(path)
        .status()
        .map_err(ClusterError::io("start", Path::new("test")))?;
    if reached.success() {
        return Ok(());
    }
    Err(ClusterError::FolderClosed {
        folder: path.to_owned(),
        account: account.name(),
    })
}

/// Inside the folder if the socket's path fits, else in the temporary folder, under a name that is
/// the same at the next start.
fn socket_folder(folder: &Path) -> PathBuf {
    let inside = folder.join("socket");
    let name = format!(".s.PGSQL.{PORT}.lock");
    if inside.join(name).as_os_str().as_bytes().len() <= SOCKET_PATH_LIMIT {
        return inside;
    }
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    std::env::temp_dir().join(format!("coordinator-{:016x}", hasher.finish()))
}

/// A folder of the account's alone. One that exists must be so already: in the temporary folder
/// anybody could have made it.
fn make_private(path: &Path, account: &Account) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return own(path, account),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    let owner = account
        .owner()
        .map_or(nix::unistd::Uid::effective(), |(uid, _)| uid);
    let private = found.mode().trailing_zeros() >= 6;
    if found.is_dir() && found.uid() == owner.as_raw() && private {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it exists and is not private",
    ))
}

fn remove_if_there(path: &Path) -> Result<(), ClusterError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ClusterError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
