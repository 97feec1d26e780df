#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rsprune_core::rows::{Block, Rows};
use rsprune_fuzz as _;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("rsprune-fuzz-{}.npy", std::process::id())));

// What a header promises can be read.
fuzz_target!(|content: &[u8]| {
    std::fs::write(&*FILE, content).expect("a file that can be written");
    let Ok(rows) = Block::open(&FILE).and_then(|block| Rows::new(vec![block])) else { return };
    let end = rows.len();
    rows.reader().read(end.saturating_sub(2)..end).expect("rows that are there");
});
