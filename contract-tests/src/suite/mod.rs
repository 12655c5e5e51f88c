//! The cases, one file per section of the contract.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use syncguard_core::Result;

use crate::store::Store;

/// Lists the cases of a file by their names. The cases themselves are private functions, so one
/// that is not listed is dead code.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) const CASES: &[$crate::suite::Case] = &[$($crate::suite::Case {
            module: module_path!(),
            name: stringify!($case),
            run: |store| Box::pin($case(store)),
        }),+];
    };
}

mod acquire;
mod background;
mod cancel;
mod errors;
mod handoff;
mod hold;
mod ids;
mod keep_alive;
mod keys;
mod line;
mod lookup;
mod observe;
mod release;
mod succession;
mod time;
mod wait;
mod wake_up;

/// One line of the contract, or a facet of one.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    module: &'static str,
    name: &'static str,
    run: fn(Store) -> Running,
}

type Running = Pin<Box<dyn Future<Output = Result<()>>>>;

impl Case {
    /// Section and name: `release::r2_true_exactly_once_of_ten`.
    pub(crate) fn name(self) -> String {
        let section = self.module.rsplit("::").next().unwrap_or_default();
        format!("{section}::{}", self.name)
    }

    pub(crate) fn run(self, store: Store) -> Running {
        (self.run)(store)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let sections = [
        keys::CASES,
        ids::CASES,
        time::CASES,
        acquire::CASES,
        release::CASES,
        lookup::CASES,
        handoff::CASES,
        wait::CASES,
        line::CASES,
        wake_up::CASES,
        succession::CASES,
        hold::CASES,
        background::CASES,
        keep_alive::CASES,
        cancel::CASES,
        errors::CASES,
        observe::CASES,
    ];
    sections.into_iter().flatten().copied()
}

/// Those in which somebody waits, for clients who do not get all notifications of the backend.
pub(crate) fn waiting() -> impl Iterator<Item = Case> {
    let sections = [wait::CASES, line::CASES, wake_up::CASES, succession::CASES];
    sections.into_iter().flatten().copied()
}
