//! The table at the end of a run.

use std::fmt;
use std::time::Duration;

use crate::check::Report;

/// How many violations are printed.
const MOST: usize = 20;

/// Prints a report.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) title: String,
    pub(crate) report: &'a Report,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { exclusion, observers, recovery, register, resources, .. } = self.report;
        writeln!(f, "{}", self.title)?;
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<42} {value}");
        row("grants", self.report.grants.to_string())?;
        row("terms", self.report.terms.to_string())?;
        row("violations", self.report.violations.len().to_string())?;
        row("faults", self.report.faults.values().sum::<usize>().to_string())?;
        for (kind, count) in &self.report.faults {
            let recovered = recovery.recovery.get(kind);
            let recovered = recovered.map(|took| format!(", next grant within {}", millis(*took)));
            row(&format!("  {kind:?}"), format!("{count}{}", recovered.unwrap_or_default()))?;
        }
        row("errors, each with a cause", self.report.errors.to_string())?;
        row("longest gap, faults included", millis(recovery.longest_gap))?;
        row("longest gap after the last fault", millis(recovery.longest_calm_gap))?;
        row("longest vacancy of the contested election", millis(recovery.longest_vacancy))?;
        row("vacancies that observers had to see", observers.seen_vacancies.to_string())?;
        row("holds that a pause made outlive their lease", exclusion.outlived.to_string())?;
        row("latest end after a successor, pauses excused", millis(exclusion.latest_end))?;
        row(
            "writes to the register",
            format!("{} accepted, {} refused", register.accepted, register.refused),
        )?;
        row(
            "grants per second before and after faults",
            format!("{:.0} and {:.0}", recovery.rate_before, recovery.rate_after),
        )?;
        row("all keys free after the end within", millis(recovery.longest_probe))?;
        row(
            "most memory and sockets of a worker",
            format!("{} MiB, {}", resources.memory_kib / 1_024, resources.sockets),
        )?;
        for violation in self.report.violations.iter().take(MOST) {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
