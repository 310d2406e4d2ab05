//! Finds an installed PostgreSQL server.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ClusterError;

/// Where Debian and Ubuntu keep one folder per major version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A folder that has both `initdb` and `postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    /// The installations at hand, at least one: only the named one, or else the one on the search
    /// path, and after it the packaged ones, newest first.
    pub(super) fn find(named: Option<&Path>) -> Result<Vec<Self>, ClusterError> {
        let (folders, looked) = match named {
            Some(folder) => (
                vec![folder.to_owned()],
                format!("looked in {}", folder.display()),
            ),
            None => (
                search_path().into_iter().chain(packaged()).collect(),
                format!("looked in PATH and in {VERSIONS}/*/bin"),
            ),
        };
        let found: Vec<_> = folders.into_iter().filter_map(Self::in_folder).collect();
        if found.is_empty() {
            return Err(ClusterError::BinariesMissing { looked });
        }
        Ok(found)
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    fn in_folder(folder: PathBuf) -> Option<Self> {
        if !folder.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let major = major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { folder, major })
    }
}

/// The installation that can open a cluster made by a major version.
pub(super) fn of_version<'a>(
    found: &'a [Binaries],
    wanted: u32,
    folder: &Path,
) -> Result<&'a Binaries, ClusterError> {
    found
        .iter()
        .find(|binaries| binaries.major == wanted)
        .ok_or_else(|| {
            let majors: Vec<_> = found
                .iter()
                .map(|binaries| binaries.major.to_string())
                .collect();
            ClusterError::VersionMissing {
                folder: folder.to_owned(),
                wanted,
                found: majors.join(", "),
            }
        })
}

/// Folders on the search path with an `initdb`, links followed, since the server looks for its
/// own files beside its real place.
fn search_path() -> Vec<PathBuf> {
    let Some(path) = std::env::var_os("PATH") else {
        return Vec::new();
    };
    std::env::split_paths(&path)
        .filter_map(|folder| folder.join("initdb").canonicalize().ok())
        .filter_map(|initdb| initdb.parent().map(Path::to_owned))
        .collect()
}

fn packaged() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(VERSIONS) else {
        return Vec::new();
    };
    let mut majors: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors
        .iter()
        .map(|major| Path::new(VERSIONS).join(major.to_string()).join("bin"))
        .collect()
}

/// From `postgres (PostgreSQL) 15.3 (Debian 15.3-0+deb12u1)`, `… 18beta1` and the like.
fn major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version_from_what_postgres_prints() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.3 (Debian 15.3-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 19beta2\n"), Some(19));
        assert_eq!(major("postgres (EnterpriseDB) 15\n"), None);
    }

    #[test]
    fn says_what_to_install_when_the_named_folder_has_no_server() {
        let refusal = Binaries::find(Some(Path::new("/nonexistent")))
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("looked in /nonexistent"), "{refusal}");
        assert!(refusal.contains("apt-get install postgresql"), "{refusal}");
    }

    #[test]
    fn refuses_a_cluster_of_a_version_that_is_not_installed() {
        let found = [Binaries {
            folder: "/a".into(),
            major: 17,
        }];
        let refusal = of_version(&found, 15, Path::new("/d"))
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("made by PostgreSQL 15"), "{refusal}");
        assert!(refusal.contains("postgresql-15"), "{refusal}");
        assert_eq!(of_version(&found, 17, Path::new("/d")).unwrap(), &found[0]);
    }
}
