//! Copies the sources of quota below modules of this crate, each with the primitives of
//! one checker, some with one planted fault. A fault whose text is not found exactly
//! once ends the build: it would plant nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "src/faults.rs"]
#[expect(dead_code, unreachable_pub, reason = "the tests read the rest")]
mod faults;

use faults::{FAULTS, Fault, Tree};

/// What the admission word and decisions over several words are made of.
const WORDS: [&str; 2] = ["quota/word.rs", "quota/several.rs"];
/// What the life of a reservation is made of besides.
const LIFE: [&str; 24] = [
    "quota/account.rs",
    "quota/alarm.rs",
    "quota/blocks.rs",
    "quota/book.rs",
    "quota/catalogue.rs",
    "quota/decide.rs",
    "quota/early.rs",
    "quota/entitlements.rs",
    "quota/expiries.rs",
    "quota/hold.rs",
    "quota/holds.rs",
    "quota/ledger.rs",
    "quota/live.rs",
    "quota/mod.rs",
    "quota/name.rs",
    "quota/places.rs",
    "quota/reservations.rs",
    "quota/short.rs",
    "quota/shortcuts.rs",
    "quota/stand_in.rs",
    "quota/words.rs",
    "cells.rs",
    "prefetch.rs",
    "rules.rs",
];

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo names the package"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo names the output"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=../aggregator/src");
    let mut variants = String::new();
    for tree in Tree::ALL {
        write_tree(&here, &out, tree, None);
        declare(&mut variants, &out, tree, tree.name());
    }
    for fault in FAULTS {
        write_tree(&here, &out, fault.tree, Some(fault));
        declare(&mut variants, &out, fault.tree, fault.name);
    }
    let copies: Vec<String> =
        FAULTS.iter().map(|fault| format!("(\"{0}\", {0}::quota::models::ALL)", fault.name)).collect();
    writeln!(
        variants,
        "/// The models on every faulty copy, by the fault's name.\n\
         pub const FAULTY: &[(&str, Models)] = &[{}];",
        copies.join(", ")
    )
    .expect("memory");
    write(&out.join("variants.rs"), &variants);
}

/// Declares a variant.
fn declare(variants: &mut String, out: &Path, tree: Tree, name: &str) {
    let at = out.join(name);
    let besides: &[&str] = if tree == Tree::Life { &["cells", "prefetch", "rules"] } else { &[] };
    let besides: String = besides.iter().map(|module| placed(&at.join(format!("{module}.rs")), module)).collect();
    let root = format!("//! A copy.\n{besides}{}", placed(&at.join("quota/mod.rs"), "quota"));
    write(&at.join("root.rs"), &root);
    variants.push_str(&placed(&at.join("root.rs"), name));
}

fn placed(path: &Path, module: &str) -> String {
    format!("#[path = {:?}]\npub mod {module};\n", path.display().to_string())
}

fn write_tree(here: &Path, out: &Path, tree: Tree, fault: Option<&Fault>) {
    let sources = here.join("../aggregator/src");
    let name = fault.map_or(tree.name(), |fault| fault.name);
    let life: &[&str] = if tree == Tree::Life { &LIFE } else { &[] };
    let mut is_planted = fault.is_none();
    for file in WORDS.iter().chain(life) {
        let mut text = fs::read_to_string(sources.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        if let Some(fault) = fault.filter(|fault| fault.file == *file) {
            for [sound, faulty] in fault.changes {
                assert_eq!(text.matches(sound).count(), 1, "{}: `{sound}` in {file}", fault.name);
                text = text.replacen(sound, faulty, 1);
            }
            is_planted = true;
        }
        write(&out.join(name).join(file), &adapted(&text, name));
    }
    assert!(is_planted, "{name}: {:?} is not among the copied files", fault.map(|fault| fault.file));
    write(&out.join(name).join("quota/sync.rs"), &format!("//! A checker's.\n{}\n", tree.sync()));
    // The models see what the module keeps to itself.
    let source = here.join("src/models").join(format!("{}.rs", tree.models()));
    let copy = out.join(name).join("models.rs");
    write(&copy, &fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display())));
    let models = placed(&copy, "models");
    let modules = out.join(name).join("quota/mod.rs");
    let own = match tree {
        Tree::Life => fs::read_to_string(&modules).unwrap_or_else(|error| panic!("{name}: {error}")),
        _ => "//! A copy.\nmod several;\nmod sync;\nmod word;\n".to_owned(),
    };
    write(&modules, &format!("{own}\n{models}"));
}

/// The same code one module deeper, without its tests, its map one that a checker can
/// look into.
fn adapted(text: &str, name: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    // Else hardly anybody is overtaken by whoever goes through all of them.
    code.replace("const LANES: usize = 64;", "const LANES: usize = 2;")
        // A checker's primitives are larger than the real ones, and making them takes longer.
        .replace("const _: () = assert!(size_of::<Line>() == 64, \"four places are one cache line\");", "")
        .replace("const FIRST_BITS: u32 = 10;", "const FIRST_BITS: u32 = 3;")
        // One line, so that any two names want the same places.
        .replace("const PLACES_MIN: usize = 1 << 10;", "const PLACES_MIN: usize = LINE;")
        // Making a checker's lock takes longer than taking it.
        .replace("const SHARDS: usize = 128;", "const SHARDS: usize = 4;")
        .replace("const BOUNDS_FIRST: usize = 255;", "const BOUNDS_FIRST: usize = 1;")
        .replace("crate::", &format!("crate::{name}::"))
        .replace("use dashmap::", "use crate::map::")
}

fn write(path: &Path, text: &str) {
    let parent = path.parent().expect("inside the output");
    fs::create_dir_all(parent).and_then(|()| fs::write(path, text)).unwrap_or_else(|error| panic!("{error}"));
}
