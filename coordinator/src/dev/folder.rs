//! The folder of `coordinator dev`: a Postgres cluster, and three secrets in files that only their
//! owner can read.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::TryRng;
use rand::rngs::SysRng;

use crate::config::Secret;
use crate::failure::Failure;

/// The folder itself lets the account that Postgres runs as pass through, and no more.
const FOLDER_MODE: u32 = 0o711;
const SECRET_MODE: u32 = 0o600;

/// Everything that `coordinator dev` keeps.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    /// Opens the folder, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path);
        made.and_then(|()| path.canonicalize())
            .map(|path| Self { path })
            .map_err(|error| failed(path, &error))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The Postgres cluster's own folder.
    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// The operator token, made the first time.
    pub(super) fn operator_token(&self) -> Result<Secret, Failure> {
        self.find_or_make("operator-token", || Ok(URL_SAFE_NO_PAD.encode(random()?)))
    }

    /// The master keys, made the first time. Without them every API key is lost.
    pub(super) fn master_keys(&self) -> Result<Secret, Failure> {
        self.find_or_make("master-keys", || {
            Ok(format!("dev:{}", STANDARD.encode(random()?)))
        })
    }

    /// The API key, if there is one.
    pub(super) fn key(&self) -> Result<Option<Secret>, Failure> {
        self.find("api-key")
    }

    /// Keeps the API key for the next start.
    pub(super) fn keep_key(&self, key: &str) -> Result<Secret, Failure> {
        self.keep("api-key", key)
    }

    fn find_or_make(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<Secret, Failure> {
        match self.find(name)? {
            Some(secret) => Ok(secret),
            None => self.keep(name, &make()?),
        }
    }

    fn find(&self, name: &str) -> Result<Option<Secret>, Failure> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Secret::new(text.trim()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// Written beside its place and moved there, so that a crash leaves all of it or nothing.
    fn keep(&self, name: &str, text: &str) -> Result<Secret, Failure> {
        let path = self.path.join(name);
        let draft = self.path.join(format!(".{name}"));
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(SECRET_MODE)
                .open(&draft)?;
            file.set_permissions(fs::Permissions::from_mode(SECRET_MODE))?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            fs::File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| failed(&path, &error))?;
        Ok(Secret::new(text))
    }
}

fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| Failure::internal(format!("no randomness: {error}")))?;
    Ok(bytes)
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::config(format!("--data-dir: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_only_their_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let data = DataFolder::open(&path).unwrap();
        let (token, keys) = (data.operator_token().unwrap(), data.master_keys().unwrap());
        assert!(data.key().unwrap().is_none());
        data.keep_key("sk_test_abc").unwrap();

        let again = DataFolder::open(&path).unwrap();
        assert_eq!(again.operator_token().unwrap().expose(), token.expose());
        assert_eq!(again.master_keys().unwrap().expose(), keys.expose());
        assert_eq!(again.key().unwrap().unwrap().expose(), "sk_test_abc");
        let files: Vec<_> = fs::read_dir(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 3, "no draft is left");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
