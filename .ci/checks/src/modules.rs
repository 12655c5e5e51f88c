//! The modules of one crate, and the file that defines a name.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, UseTree, Visibility};

/// The modules of one crate, except those of its unit tests. The first is the root.
#[derive(Default)]
pub(crate) struct Modules(Vec<Module>);

pub(crate) struct Module {
    pub(crate) file: PathBuf,
    pub(crate) items: Vec<Item>,
    parent: usize,
    children: BTreeMap<String, usize>,
    definitions: BTreeSet<String>,
    /// Names that `use` brings in, and their full paths.
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
}

/// A path in a `use`, split at `::`, and the name that it has here: none for a glob.
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    name: Option<String>,
}

/// Re-exports of re-exports end somewhere. This is where a name that nobody defines does.
const LONGEST_CHAIN: u8 = 12;

impl Modules {
    /// Parses the crate with this root file.
    pub(crate) fn parse(root: &Path) -> Result<Self, Box<dyn Error>> {
        let mut modules = Self::default();
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        modules.add_file(root, &folder, 0)?;
        Ok(modules)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Module)> {
        self.0.iter().enumerate()
    }

    /// Returns the file that defines what this path names in a module. None if that is another crate.
    pub(crate) fn file_of(&self, module: usize, path: &[String]) -> Option<&Path> {
        let definer = self.find(module, path, LONGEST_CHAIN)?;
        Some(&self.0[definer].file)
    }

    /// `folder` is where the files of the module's children are.
    fn add_file(
        &mut self,
        file: &Path,
        folder: &Path,
        parent: usize,
    ) -> Result<usize, Box<dyn Error>> {
        let text =
            fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let items = syn::parse_file(&text)?.items;
        self.add(file, folder, parent, items)
    }

    fn add(
        &mut self,
        file: &Path,
        folder: &Path,
        parent: usize,
        items: Vec<Item>,
    ) -> Result<usize, Box<dyn Error>> {
        let index = self.0.len();
        self.0.push(Module::new(file, parent, &items));
        for item in &items {
            let Item::Mod(child) = item else { continue };
            if is_test(&child.attrs) {
                continue;
            }
            let name = child.ident.to_string();
            let below = folder.join(&name);
            let added = match &child.content {
                Some((_, items)) => self.add(file, &below, index, items.clone())?,
                None => {
                    let flat = folder.join(format!("{name}.rs"));
                    let nested = below.join("mod.rs");
                    let file = if flat.exists() { flat } else { nested };
                    self.add_file(&file, &below, index)?
                }
            };
            self.0[index].children.insert(name, added);
        }
        self.0[index].items = items;
        Ok(index)
    }

    fn find(&self, module: usize, path: &[String], chain: u8) -> Option<usize> {
        let Some((name, rest)) = path.split_first() else { return Some(module) };
        let chain = chain.checked_sub(1)?;
        let here = &self.0[module];
        match name.as_str() {
            "crate" => self.find(0, rest, chain),
            "self" => self.find(module, rest, chain),
            "super" => self.find(here.parent, rest, chain),
            _ if here.children.contains_key(name) => self.find(here.children[name], rest, chain),
            _ if here.definitions.contains(name) => Some(module),
            _ => {
                if let Some(import) = here.imports.get(name) {
                    return self.find(module, &[import, rest].concat(), chain);
                }
                here.globs.iter().find_map(|glob| self.find(module, &[glob, path].concat(), chain))
            }
        }
    }
}

impl Module {
    fn new(file: &Path, parent: usize, items: &[Item]) -> Self {
        let mut module = Self {
            file: file.to_owned(),
            items: Vec::new(),
            parent,
            children: BTreeMap::new(),
            definitions: items.iter().filter_map(name_of).collect(),
            imports: BTreeMap::new(),
            globs: Vec::new(),
        };
        for item in items {
            let Item::Use(item) = item else { continue };
            for import in imports(&item.tree) {
                match import.name {
                    Some(name) => drop(module.imports.insert(name, import.path)),
                    None => module.globs.push(import.path),
                }
            }
        }
        module
    }
}

/// The paths that a `use` names.
pub(crate) fn imports(tree: &UseTree) -> Vec<Import> {
    let (first, rest) = match tree {
        UseTree::Path(path) => (&path.ident, imports(&path.tree)),
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            return vec![Import { path: vec![name.clone()], name: Some(name) }];
        }
        UseTree::Rename(rename) => {
            let path = vec![rename.ident.to_string()];
            return vec![Import { path, name: Some(rename.rename.to_string()) }];
        }
        UseTree::Glob(_) => return vec![Import { path: Vec::new(), name: None }],
        UseTree::Group(group) => return group.items.iter().flat_map(imports).collect(),
    };
    let first = first.to_string();
    let rest = rest.into_iter().map(|mut import| {
        import.path.insert(0, first.clone());
        if import.name.as_deref() == Some("self") {
            import.name = Some(first.clone());
        }
        import
    });
    rest.collect()
}

/// Whether this is compiled for unit tests only.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

/// Whether this only passes names on to other files.
pub(crate) fn is_reexport(item: &syn::ItemUse) -> bool {
    !matches!(item.vis, Visibility::Inherited)
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
