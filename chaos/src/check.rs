//! The checker: finds what a history does not keep. It only reads.

#[cfg(test)]
mod by_hand;
mod errors;
mod exclusion;
mod fences;
mod observers;
mod recovery;
mod register;
mod resources;
mod run;
mod spans;
mod violation;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use self::run::Part;
pub(crate) use self::run::Run;
pub(crate) use self::violation::{Kind, Violation};
use crate::event::{FaultKind, How};
use crate::history;
use crate::outcome::Outcome;
use crate::parent::PARENT_FILE;

/// What was found in a run, and how large it was.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    pub(crate) grants: usize,
    pub(crate) terms: usize,
    pub(crate) faults: BTreeMap<FaultKind, usize>,
    pub(crate) errors: usize,
    pub(crate) exclusion: exclusion::Figures,
    pub(crate) observers: observers::Figures,
    pub(crate) recovery: recovery::Figures,
    pub(crate) register: register::Figures,
    pub(crate) resources: resources::Figures,
}

pub(crate) fn check(run: &Run) -> Report {
    let mut found = Vec::new();
    let exclusion = exclusion::check(run, &mut found);
    fences::check(run, &mut found);
    let observers = observers::check(run, &mut found);
    let register = register::check(run, &mut found);
    let errors = errors::check(run, &mut found);
    let recovery = recovery::check(run, &mut found);
    let resources = resources::check(run, &mut found);
    found.sort_by_key(|violation| violation.at);

    let mut faults = BTreeMap::new();
    for fault in &run.faults {
        *faults.entry(fault.kind).or_default() += 1;
    }
    let terms = run.holds.iter().filter(|hold| hold.how == How::Lead).count();
    let adopted = run.holds.iter().filter(|hold| hold.how == How::Adopt).count();
    let grants = run.holds.len() - terms - adopted;
    Report {
        violations: found,
        grants,
        terms,
        faults,
        errors,
        exclusion,
        observers,
        recovery,
        register,
        resources,
    }
}

/// Reads the histories in a folder.
pub(crate) fn read(folder: &Path) -> Outcome<Run> {
    let mut parts = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let Some(name) = name.strip_prefix("worker-") else { continue };
        let (worker, incarnation) = name.split_once('-').ok_or("a history without a number")?;
        let (worker, incarnation) = (worker.parse()?, incarnation.parse()?);
        parts.push(Part { worker, incarnation, entries: history::read(&path)? });
    }
    parts.sort_by_key(|part| (part.worker, part.incarnation));
    Ok(Run::assemble(history::read(&folder.join(PARENT_FILE))?, parts))
}
