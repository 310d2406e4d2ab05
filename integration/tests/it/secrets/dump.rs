//! All that a database holds, as text.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use sqlx::{AssertSqlSafe, PgPool};

/// Rows by table.
#[derive(Debug)]
pub(super) struct Dump(BTreeMap<String, String>);

impl Dump {
    /// By `pg_dump` where there is one, else table by table.
    pub(super) async fn of(pool: &PgPool, url: &str) -> Self {
        let dump = match pg_dump() {
            Some(program) => Self::read(program, url.to_owned()).await,
            None => Self::select(pool).await,
        };
        assert!(dump.0.len() > 15, "{:?}", dump.0.keys());
        dump
    }

    pub(super) fn text(&self) -> String {
        self.0.values().map(String::as_str).collect()
    }

    /// Tables with a row that shows a text, as text or as bytes.
    pub(super) fn tables_with(&self, text: &str) -> Vec<&str> {
        let bytes: Vec<String> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let bytes = bytes.concat();
        let shows = |rows: &str| rows.contains(text) || rows.contains(&bytes);
        let found = self.0.iter().filter(|(_, rows)| shows(rows));
        found.map(|(table, _)| table.as_str()).collect()
    }

    async fn read(program: PathBuf, url: String) -> Self {
        let mut command = Command::new(program);
        command.arg("--dbname").arg(url);
        let dumped = tokio::task::spawn_blocking(move || command.output());
        let dumped = dumped.await.unwrap().unwrap();
        let complaint = String::from_utf8_lossy(&dumped.stderr);
        assert!(dumped.status.success(), "{complaint}");
        let mut tables: BTreeMap<String, String> = BTreeMap::new();
        let mut table = "the definitions".to_owned();
        for line in String::from_utf8(dumped.stdout).unwrap().lines() {
            if let Some(copy) = line.strip_prefix("COPY public.") {
                copy.split(' ').next().unwrap().clone_into(&mut table);
            }
            let rows = tables.entry(table.clone()).or_default();
            rows.push_str(line);
            rows.push('\n');
            if line == "\\." {
                "the definitions".clone_into(&mut table);
            }
        }
        Self(tables)
    }

    async fn select(pool: &PgPool) -> Self {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class
             WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let mut tables = BTreeMap::new();
        for name in names {
            let rows =
                format!("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM \"{name}\" t");
            let rows = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(pool);
            tables.insert(name, rows.await.unwrap());
        }
        Self(tables)
    }
}

/// Beside the server's programs, where Debian and Ubuntu keep them, or on the search path.
fn pg_dump() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let packaged = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut packaged: Vec<_> = packaged.flatten().map(|it| it.path().join("bin")).collect();
    packaged.sort();
    let folders = std::env::split_paths(&path).chain(packaged.into_iter().rev());
    folders.map(|it| it.join("pg_dump")).find(|it| it.is_file())
}
