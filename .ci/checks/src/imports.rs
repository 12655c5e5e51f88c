//! Which file of a crate uses which other, and the cycles among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::path::{Path, PathBuf};

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItemFn, ItemFn, ItemImpl, ItemMod, ItemUse, Macro, Token};

use crate::modules::{Modules, imports, is_reexport, is_test};

/// The files of one crate, and the files from which each takes items.
///
/// A name counts for the file that defines it, not for those that re-export it. So a file may
/// re-export what files below it define. Unit tests are left out.
#[derive(Debug)]
pub struct Imports(BTreeMap<PathBuf, BTreeSet<PathBuf>>);

impl Imports {
    /// Reads the crate with this root file.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or parsed.
    pub fn read(root: &Path) -> Result<Self, Box<dyn Error>> {
        let modules = Modules::parse(root)?;
        let mut files = BTreeMap::new();
        for (module, content) in modules.iter() {
            let used = BTreeSet::new();
            let mut collector = Collector { modules: &modules, module, used };
            content.items.iter().for_each(|item| collector.visit_item(item));
            collector.used.remove(&content.file);
            files.entry(content.file.clone()).or_insert_with(BTreeSet::new).extend(collector.used);
        }
        Ok(Self(files))
    }

    /// Returns the shortest cycle through each file, except files of a cycle that is there already.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<&Path>> {
        let mut cycles: Vec<Vec<&Path>> = Vec::new();
        for file in self.0.keys() {
            if !cycles.iter().flatten().any(|known| known == file) {
                cycles.extend(self.cycle(file));
            }
        }
        cycles
    }

    fn cycle<'a>(&'a self, start: &'a Path) -> Option<Vec<&'a Path>> {
        let mut users: BTreeMap<&Path, &Path> = BTreeMap::new();
        let mut open = VecDeque::from([start]);
        while let Some(file) = open.pop_front() {
            for used in self.0.get(file).into_iter().flatten() {
                if used == start {
                    let mut cycle = vec![start, file];
                    while let Some(user) = cycle.last().and_then(|file| users.get(*file)) {
                        cycle.push(user);
                    }
                    cycle.reverse();
                    return Some(cycle);
                }
                if !users.contains_key(used.as_path()) {
                    users.insert(used.as_path(), file);
                    open.push_back(used);
                }
            }
        }
        None
    }
}

/// Collects the files that the items of one module use.
struct Collector<'a> {
    modules: &'a Modules,
    module: usize,
    used: BTreeSet<PathBuf>,
}

impl Collector<'_> {
    fn uses(&mut self, path: &[String]) {
        let file = self.modules.file_of(self.module, path);
        self.used.extend(file.map(Path::to_owned));
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_reexport(item) && !is_test(&item.attrs) {
            imports(&item.tree).iter().for_each(|import| self.uses(&import.path));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // A single lower-case name may be a variable. A `use` of a function counts by itself.
        if names.len() > 1 || names[0].starts_with(char::is_uppercase) {
            self.uses(&names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast Macro) {
        // Most macros take expressions. The others are not read.
        let arguments = mac.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated);
        for argument in arguments.into_iter().flatten() {
            let mut collector =
                Collector { modules: self.modules, module: self.module, used: BTreeSet::new() };
            collector.visit_expr(&argument);
            self.used.append(&mut collector.used);
        }
    }

    // A module is one of `Modules` itself, if it is not for unit tests.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }
}
