//! The cases, one file per section of the contract.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use syncguard_core::{Capabilities, Result};

use crate::store::Store;

/// Lists the cases of a file by the names of their functions, and what a backend must support for
/// them. The functions are private, so a case that is not listed is dead code.
macro_rules! cases {
    (@needs) => { None };
    (@needs $need:ident) => { Some($crate::cases::Need::$need) };
    ($($case:ident $(needs $need:ident)?),+ $(,)?) => {
        pub(super) const CASES: &[$crate::cases::Case] = &[$($crate::cases::Case {
            module: module_path!(),
            name: stringify!($case),
            needs: cases!(@needs $($need)?),
            run: |store| Box::pin($case(store)),
        }),+];
    };
}

mod acquire;
mod background;
mod cancel;
mod election;
mod errors;
mod failed_handoff;
mod handoff;
mod handoff_to_waiter;
mod hold;
mod ids;
mod keep_alive;
mod keys;
mod leaving;
mod lookup;
mod notifications;
mod observe;
mod publishing;
mod queue;
mod release;
mod time;
mod wait;

/// What a backend must declare in its [`Capabilities`] so that there is something to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Handoff,
    Notifications,
    Publishing,
}

impl Need {
    pub(crate) const fn is_met_by(self, capabilities: Capabilities) -> bool {
        match self {
            Self::Handoff => capabilities.supports_handoff(),
            Self::Notifications => capabilities.receives_notifications(),
            Self::Publishing => capabilities.publishes(),
        }
    }

    /// The method of [`Capabilities`] that answers.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Handoff => "supports_handoff",
            Self::Notifications => "receives_notifications",
            Self::Publishing => "publishes",
        }
    }
}

/// One clause of the contract, or a part of one.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    module: &'static str,
    name: &'static str,
    needs: Option<Need>,
    run: fn(Store) -> Running,
}

type Running = Pin<Box<dyn Future<Output = Result<()>>>>;

impl Case {
    /// Section and name, such as `release::r2_true_exactly_once_of_ten`.
    pub(crate) fn name(self) -> String {
        let section = self.module.rsplit("::").next().unwrap_or_default();
        format!("{section}::{}", self.name)
    }

    pub(crate) const fn needs(self) -> Option<Need> {
        self.needs
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

pub(crate) fn all() -> impl Iterator<Item = Case> {
    let sections = [
        keys::CASES,
        ids::CASES,
        time::CASES,
        acquire::CASES,
        release::CASES,
        lookup::CASES,
        handoff::CASES,
        wait::CASES,
        queue::CASES,
        leaving::CASES,
        notifications::CASES,
        handoff_to_waiter::CASES,
        failed_handoff::CASES,
        hold::CASES,
        background::CASES,
        keep_alive::CASES,
        cancel::CASES,
        errors::CASES,
        observe::CASES,
        election::CASES,
        publishing::CASES,
    ];
    sections.into_iter().flatten().copied()
}

/// The cases in which a waiter may not rely on notifications: they run again without them.
pub(crate) fn without_notifications() -> impl Iterator<Item = Case> {
    let sections = [
        wait::CASES,
        queue::CASES,
        leaving::CASES,
        notifications::CASES,
        handoff_to_waiter::CASES,
        failed_handoff::CASES,
    ];
    let cases = sections.into_iter().flatten().copied();
    cases.filter(|case| case.needs != Some(Need::Notifications))
}
