//! The packages of the workspace, their features and all that they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{cargo, host};

/// The workspace, as `cargo metadata` describes it for this platform.
#[derive(Debug)]
pub struct Workspace {
    packages: BTreeMap<String, Package>,
    /// Dependencies of each package, except those of its tests and of its features with a newer Rust.
    dependencies: BTreeMap<String, Vec<String>>,
    members: Vec<String>,
}

/// A package of the workspace, or one that it depends on.
#[derive(Debug, Deserialize)]
#[non_exhaustive]
pub struct Package {
    id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The oldest Rust that it promises to compile with.
    pub rust_version: Option<String>,
    /// Each feature, and what it turns on.
    pub features: BTreeMap<String, Vec<String>>,
    /// The registries that it may be published to; any if this is `None`.
    publish: Option<Vec<String>>,
    /// Its license, as an SPDX expression.
    pub license: Option<String>,
    /// What its `Cargo.toml` depends on.
    #[serde(rename = "dependencies")]
    pub requirements: Vec<Requirement>,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
    targets: Vec<Target>,
    metadata: Option<serde_json::Value>,
}

/// A dependency in a `Cargo.toml`.
#[derive(Debug, Deserialize)]
#[non_exhaustive]
pub struct Requirement {
    /// The name of the package.
    pub name: String,
    /// The versions that will do.
    pub req: String,
    /// The folder of the package, if it is one of this workspace.
    pub path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    src_path: PathBuf,
    kind: Vec<String>,
}

/// A version of Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RustVersion(u32, u32, u32);

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    /// The name of its library.
    name: String,
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

impl Workspace {
    /// Reads the workspace that this crate belongs to, with all features.
    ///
    /// # Errors
    ///
    /// If `cargo metadata` fails.
    pub fn read() -> Result<Self, Box<dyn Error>> {
        // The filter keeps cargo from fetching packages that only other platforms need.
        let mut command = cargo();
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(["metadata", "--format-version=1", "--all-features", "--filter-platform"]);
        let output = command.arg(host()?).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
        let packages = metadata.packages.into_iter().map(|package| (package.id.clone(), package));
        let packages: BTreeMap<_, _> = packages.collect();
        let nodes = metadata.resolve.nodes.into_iter();
        let dependencies = nodes.map(|node| {
            let excepted = packages.get(&node.id).map(Package::dependencies_with_newer_rust);
            let excepted = excepted.unwrap_or_default();
            let built = node
                .deps
                .into_iter()
                .filter(|dependency| dependency.is_built() && !excepted.contains(&dependency.name));
            (node.id, built.map(|dependency| dependency.pkg).collect())
        });
        let dependencies = dependencies.collect();
        Ok(Self { packages, dependencies, members: metadata.workspace_members })
    }

    /// Returns the packages of this workspace.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.members.iter().filter_map(|id| self.packages.get(id))
    }

    /// Returns each package that this one needs, directly or through others, to compile with the Rust
    /// version that it promises.
    #[must_use]
    pub fn dependencies(&self, package: &Package) -> Vec<&Package> {
        let mut seen = BTreeSet::new();
        let mut open = vec![&package.id];
        while let Some(id) = open.pop() {
            for dependency in self.dependencies.get(id).into_iter().flatten() {
                if seen.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        seen.into_iter().filter_map(|id| self.packages.get(id)).collect()
    }
}

impl Dependency {
    fn is_built(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
    }
}

impl Package {
    /// Returns whether others can depend on it.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }

    /// Returns the Rust version that it promises, if it does.
    #[must_use]
    pub fn rust_version(&self) -> Option<RustVersion> {
        self.rust_version.as_deref().and_then(RustVersion::parse)
    }

    /// Returns the root files of its library, programs and benchmarks.
    pub fn crate_roots(&self) -> impl Iterator<Item = &Path> {
        let roots = self
            .targets
            .iter()
            .filter(|target| ["bench", "bin", "lib"].iter().any(|kind| target.kind == [*kind]));
        roots.map(|target| target.src_path.as_path())
    }

    /// Returns the features of other packages without which no feature of this one compiles, as
    /// `package.metadata.features-alone.with` in its `Cargo.toml` lists them.
    #[must_use]
    pub fn features_needed(&self) -> Vec<&str> {
        self.listed("features-alone", "with")
    }

    /// Returns the features that compile with the Rust version that it promises: all, except those
    /// that `package.metadata.rust-version.except-features` in its `Cargo.toml` lists.
    pub fn features_with_promised_rust(&self) -> impl Iterator<Item = &str> {
        let excepted = self.listed("rust-version", "except-features");
        self.features.keys().map(String::as_str).filter(move |feature| !excepted.contains(feature))
    }

    /// The names of the libraries that the other features turn on.
    fn dependencies_with_newer_rust(&self) -> Vec<String> {
        let excepted = self.listed("rust-version", "except-features");
        let parts = excepted.iter().filter_map(|feature| self.features.get(*feature)).flatten();
        let names = parts.filter_map(|part| part.strip_prefix("dep:"));
        names.map(|name| name.replace('-', "_")).collect()
    }

    fn listed(&self, table: &str, key: &str) -> Vec<&str> {
        let list = self.metadata.as_ref().and_then(|metadata| metadata[table][key].as_array());
        list.into_iter().flatten().filter_map(|entry| entry.as_str()).collect()
    }
}

impl RustVersion {
    /// Reads `1.88` or `1.88.0`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        let mut next = || numbers.next().unwrap_or(Ok(0)).ok();
        Some(Self(next()?, next()?, next()?))
    }
}

impl fmt::Display for RustVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}
