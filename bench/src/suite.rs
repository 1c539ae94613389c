//! The whole run: the order of measurements, and their evaluation.

use std::fmt::Write as _;

use crate::mock::Mock;
use crate::process::output;
use crate::proxies::{Kind, Setting, available, start};
use crate::report::{Bound, Figures, Table, Target};
use crate::{Outcome, Plan, folder, say};

/// The place of the tables in `docs/performance.md`.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

mod gateways;
mod growth;
mod large;
mod rest;
mod shipped;
mod small;
mod streams;
mod websockets;

/// The results of a run: text, plots, and targets.
#[derive(Default)]
pub(super) struct Results {
    text: String,
    plots: Vec<(&'static str, String)>,
    targets: Vec<Target>,
}

impl Results {
    pub(super) fn section(&mut self, title: &str, text: &str) {
        say(&format!("\n### {title}\n\n{text}"));
        let _ = write!(self.text, "\n### {title}\n\n{text}\n");
    }

    pub(super) fn plot(&mut self, name: &'static str, title: &str, svg: String) {
        let _ = write!(self.text, "\n![{title}](performance/{name}.svg)\n");
        self.plots.push((name, svg));
    }

    pub(super) fn target(&mut self, what: impl Into<String>, measured: Figures, bound: Bound) {
        if !measured.0.is_empty() {
            self.targets.push(Target { what: what.into(), measured, bound });
        }
    }
}

/// Measures everything in `plan`.
pub(crate) fn run(plan: &Plan) -> Outcome<()> {
    let mut results = Results::default();
    let kinds = available(&Mock::start()?)?;
    let machine = machine(&kinds)?;
    say(&machine);
    if plan.wants("shipped") {
        shipped::shipped(plan, &kinds, &mut results)?;
    }
    for (section, with_tls) in [("plain", false), ("tls", true)] {
        // The load generator has no TLS.
        let has = |kind: &Kind| !(with_tls && *kind == Kind::Direct);
        let kinds: Vec<_> = kinds.iter().copied().filter(has).collect();
        if plan.wants(section) {
            small::small(plan, &kinds, with_tls, &mut results)?;
        }
        if plan.wants("websockets") {
            websockets::websockets(plan, &kinds, with_tls, &mut results)?;
        }
        if !plan.wants("streams") && !plan.wants("bodies") {
            continue;
        }
        let mock = Mock::start()?;
        let subjects = kinds
            .iter()
            .map(|kind| start(*kind, &mock, Setting { with_tls, ..Setting::default() }));
        let subjects = subjects.collect::<Outcome<Vec<_>>>()?;
        let way = way(with_tls);
        if plan.wants("streams") {
            streams::many_streams(plan, &subjects, way, &mut results)?;
        }
        if plan.wants("bodies") {
            large::large(plan, &subjects, way, &mut results)?;
        }
    }
    if plan.wants("curves") {
        growth::growth(plan, &Mock::start()?, &mut results)?;
    }
    if plan.wants("idle") {
        rest::rest(plan, &Mock::start()?, &mut results)?;
    }
    if plan.wants("burst") {
        rest::burst(&Mock::start()?, &mut results)?;
    }
    if plan.wants("size") && !plan.is_short {
        rest::sizes(&mut results)?;
    }
    if !plan.gateways.is_empty() {
        gateways::gateways(plan, &Mock::start()?, &mut results)?;
    }
    finish(plan, &machine, &results)
}

/// The end of a title if the provider uses TLS.
pub(super) fn way(with_tls: bool) -> &'static str {
    if with_tls { " over TLS to the provider" } else { "" }
}

/// The figures of `kind`.
pub(super) fn of(figures: &[(Kind, Figures)], kind: Kind) -> Figures {
    figures.iter().find(|(own, _)| *own == kind).map(|(_, one)| one.clone()).unwrap_or_default()
}

fn machine(kinds: &[Kind]) -> Outcome<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let commit = output(
        std::process::Command::new("git")
            .current_dir(folder::root())
            .args(["rev-parse", "--short", "HEAD"]),
    )
    .unwrap_or_default();
    let mut text = format!(
        "{cores} cores ({}), Linux {}, everything on 127.0.0.1; commit {}.\n",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        commit.trim()
    );
    for kind in kinds.iter().filter(|kind| !matches!(kind, Kind::Direct | Kind::Relay)) {
        let _ = writeln!(text, "- {}: `{}`", kind.name(), kind.version());
    }
    Ok(text)
}

fn finish(plan: &Plan, machine: &str, results: &Results) -> Outcome<()> {
    let mut table = Table::new(["target", "bound", "measured: median (least–most)", ""]);
    for target in &results.targets {
        table.row(target.cells());
    }
    let targets = table.markdown();
    say(&format!("\n### Targets\n\n{targets}"));
    let text = format!(
        "{BEGIN}\n\n### Machine\n\n{machine}\n### Targets\n\n{targets}\n{}\n{END}",
        results.text
    );
    let folder = if plan.writes { folder::root().join("docs") } else { folder::scratch()? };
    std::fs::create_dir_all(folder.join("performance"))?;
    for (name, svg) in &results.plots {
        std::fs::write(folder.join("performance").join(format!("{name}.svg")), svg)?;
    }
    let file = folder.join("performance.md");
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let (start, end) = match (before.find(BEGIN), before.find(END)) {
        (Some(start), Some(end)) => (&before[..start], &before[end + END.len()..]),
        _ => ("", "\n"),
    };
    std::fs::write(&file, format!("{start}{text}{end}"))?;
    say(&format!("\nwritten to {}", file.display()));
    Ok(())
}
