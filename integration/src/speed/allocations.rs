//! How often nodes allocate memory. Counting costs them time, so that only a build with the feature
//! `allocations` does it; such a build says nothing about speed.

use std::path::Path;

#[cfg(feature = "allocations")]
pub use counted::report;

/// In whose environment this stands, it counts into a file of this folder named by its process.
const FOLDER: &str = "SPEED_ALLOCATIONS";

/// What nodes have in their environment.
pub(super) fn environment(folder: &Path) -> Vec<(&'static str, String)> {
    if cfg!(feature = "allocations") {
        vec![(FOLDER, folder.display().to_string())]
    } else {
        Vec::new()
    }
}

/// How often a node has allocated; none if it does not count.
pub(super) fn of(pid: u32, folder: &Path) -> Option<u64> {
    let count = std::fs::read_to_string(file(folder, pid)).ok()?;
    count.parse().ok()
}

fn file(folder: &Path, pid: u32) -> std::path::PathBuf {
    folder.join(format!("allocations-{pid}"))
}

#[cfg(feature = "allocations")]
mod counted {
    use std::alloc::System;
    use std::path::Path;
    use std::time::Duration;
    use std::{env, fs, process, thread};

    use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

    use super::{FOLDER, file};

    #[global_allocator]
    static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

    const EVERY: Duration = Duration::from_millis(100);

    /// Writes this process's count again and again, if its environment asks for it.
    pub fn report() {
        if let Some(folder) = env::var_os(FOLDER) {
            let file = file(Path::new(&folder), process::id());
            thread::spawn(move || write(&file));
        }
    }

    fn write(file: &Path) {
        let next = file.with_extension("next");
        loop {
            let stats = ALLOCATOR.stats();
            let count = stats.allocations + stats.reallocations;
            // Who looks for it says that it is not there.
            drop(fs::write(&next, count.to_string()).and_then(|()| fs::rename(&next, file)));
            thread::sleep(EVERY);
        }
    }
}
