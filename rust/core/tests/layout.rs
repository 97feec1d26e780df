//! The modules of this crate stand in one order, and use those before them alone; within a folder there are no circles.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules: each may use those before it.
const ORDER: [&str; 15] = [
    "error",
    "files",
    "runtime",
    "math",
    "simd",
    "linalg",
    "rows",
    "assign",
    "kmeans",
    "neighbors",
    "herding",
    "medians",
    "select",
    "image",
    "entropy",
];

/// The modules of a folder, each with its files.
fn modules(folder: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut modules = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() || !["lib", "mod", "tests"].contains(&name.as_str()) {
            let files: &mut Vec<PathBuf> = modules.entry(name).or_default();
            collect(&path, files);
        }
    }
    modules
}

/// All source files from `path` on but those of tests.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), files));
    } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
        files.push(path.to_owned());
    }
}

/// The code of a file without its comments and its module of tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The names that follow `prefix` in paths: one, or those of the outer braces.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for (start, _) in code.match_indices(prefix) {
        // Paths of a macro, which begin with `$`, belong to the modules that call it.
        if code[..start].ends_with(|c: char| is_name(c) || c == ':' || c == '$') {
            continue;
        }
        let rest = &code[start + prefix.len()..];
        let first = |text: &str| text.trim_start().split(|c| !is_name(c)).next().unwrap_or_default().to_owned();
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(first(rest));
            continue;
        };
        let (mut depth, mut item) = (1, 0);
        for (i, c) in list.char_indices() {
            depth = if c == '{' {
                depth + 1
            } else if c == '}' {
                depth - 1
            } else {
                depth
            };
            if depth == 0 || (c == ',' && depth == 1) {
                names.insert(first(&list[item..i]));
                item = i + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// The modules of `folder` that each of them uses.
fn uses(source: &Path, folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules(folder);
    let inside = folder.strip_prefix(source).unwrap();
    let absolute = inside.iter().fold("crate::".to_owned(), |path, part| format!("{path}{}::", part.to_str().unwrap()));
    let of_module = |(name, files): (&String, &Vec<PathBuf>)| {
        let mut used = BTreeSet::new();
        for file in files {
            let code = code(file);
            used.extend(names_after(&code, &absolute));
            // A file is as many levels below the folder as there are parts in its path; that of a folder is one less.
            let below = file.strip_prefix(folder).unwrap().iter().count() - usize::from(file.ends_with("mod.rs"));
            used.extend(names_after(&code, &"super::".repeat(below)));
        }
        used.retain(|other| other != name && modules.contains_key(other));
        (name.clone(), used)
    };
    modules.iter().map(of_module).collect()
}

#[test]
fn top_level_modules_use_those_before_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let place = |name: &str| ORDER.iter().position(|module| *module == name);
    for (module, used) in uses(&source, &source) {
        let at = place(&module).unwrap_or_else(|| panic!("{module} has no place in ORDER"));
        for other in used {
            assert!(place(&other).unwrap() < at, "{module} uses {other}, which stands after it");
        }
    }
}

#[test]
fn the_modules_of_a_folder_have_no_circles() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    let mut circles = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        folders.extend(fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
        let uses = uses(&source, &folder);
        for module in uses.keys() {
            let (mut reached, mut next) = (BTreeSet::new(), vec![module]);
            while let Some(module) = next.pop() {
                next.extend(uses[module].iter().filter(|other| reached.insert((*other).clone())));
            }
            if reached.contains(module) {
                circles.insert((folder.strip_prefix(&source).unwrap().display().to_string(), module.clone()));
            }
        }
    }
    assert!(circles.is_empty(), "{circles:?}");
}
