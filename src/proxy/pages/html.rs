//! The page for people, from a report. Pure. Every text of a report is escaped on its way in.

use std::fmt::{self, Write};

use crate::clock::Timestamp;
use crate::config::slug::in_path;
use crate::proxy::pages::{chart, listeners, quota, usage};
use crate::report::html::Text;
use crate::report::listeners::certificate_problems;
use crate::report::words::{bytes, count, duration, millis, time, until};
use crate::report::{CredentialKind, ProviderReport, Report, State, TokenReport, TunnelsReport};

const PAGE: &str = include_str!("page.html");

/// The whole page.
pub(super) fn render(report: &Report) -> String {
    let mut providers = String::new();
    for (index, provider) in report.providers.iter().enumerate() {
        // Writing to a text does not fail.
        let _ = match unique_id(report, index) {
            None => article(&mut providers, provider, report.now),
            Some(slug) => {
                let provider = ProviderReport { slug, ..provider.clone() };
                article(&mut providers, &provider, report.now)
            }
        };
    }
    let summary = report.summary();
    let fields = [
        ("{title}", format!("{summary} · evertoken")),
        ("{now_ms}", report.now.as_millis().to_string()),
        ("{facts}", facts(report)),
        ("{now}", time(report.now, report.now)),
        ("{summary}", summary),
        ("{reload}", failed_reload(report)),
        ("{store}", store(report)),
        ("{certificate}", certificate(report)),
        ("{providers}", providers),
        ("{usage}", usage::section(report.usage.as_ref())),
        ("{listeners}", listeners::section(&report.listeners, report.now)),
    ];
    // In one pass over the page, so that no inserted text is taken for a field.
    let mut page = String::new();
    let mut rest = PAGE;
    for (name, text) in fields {
        let Some((before, after)) = rest.split_once(name) else { continue };
        page.push_str(before);
        page.push_str(&text);
        rest = after;
    }
    page.push_str(rest);
    page
}

/// An id for a disabled provider that shares its slug with another; None for any other provider, whose slug is unique.
fn unique_id(report: &Report, index: usize) -> Option<String> {
    let own = &report.providers[index];
    let is_shared = report.providers.iter().filter(|one| one.slug == own.slug).nth(1).is_some();
    (is_shared && !own.enabled).then(|| format!("{}~{index}", own.slug))
}

/// The failed reload, with one line for each mistake.
fn failed_reload(report: &Report) -> String {
    let Some(failed) = &report.failed_reload else { return String::new() };
    let summary = failed.summary(report.now);
    let mut out = format!("<p><strong>{}</strong></p>", Text(&summary));
    for problem in &failed.problems {
        // Writing to a text does not fail.
        let _ = write!(out, "<p>{}</p>", Text(problem));
    }
    out
}

/// The token store's problem and warning, for all providers together.
fn store(report: &Report) -> String {
    let store = report.token_store.as_ref();
    let wrong = store.into_iter().flat_map(|store| store.problem.iter().chain(&store.warning));
    wrong.map(|text| format!("<p><strong>{}</strong></p>", Text(text))).collect()
}

/// The problems of the certificate that clients see.
fn certificate(report: &Report) -> String {
    let problems = certificate_problems(&report.listeners);
    problems.map(|what| format!("<p><strong>{}</strong></p>", Text(what))).collect()
}

fn facts(report: &Report) -> String {
    let requests = match report.in_flight {
        1 => "1 request under way".to_owned(),
        other => format!("{} requests under way", count(other)),
    };
    let (version, up) = (Text(&report.version), duration(report.uptime_seconds));
    let since = report.started_at.as_millis();
    format!("{version} · up <span data-since=\"{since}\">{up}</span> · {requests}")
}

fn article(out: &mut String, provider: &ProviderReport, now: Timestamp) -> fmt::Result {
    let (slug, name) = (Text(&provider.slug), Text(&provider.name));
    let state = provider.state;
    writeln!(
        out,
        "<article id=\"p-{slug}\" data-state=\"{}\" data-name=\"{name}\" aria-labelledby=\"n-{slug}\">",
        state.as_str()
    )?;
    writeln!(out, "<div class=\"top\"><h3 id=\"n-{slug}\">{name}</h3>")?;
    writeln!(out, "<p class=\"badge\" id=\"s-{slug}\" data-live>{}</p></div>", badge(state))?;
    writeln!(
        out,
        "<p class=\"muted where\">{} · {}</p>",
        Text(&provider.kind),
        Text(&provider.base_url)
    )?;
    write!(out, "<div id=\"w-{slug}\" data-live>")?;
    trouble(out, provider, now)?;
    writeln!(out, "</div>")?;
    write!(out, "<div class=\"token\" id=\"t-{slug}\" data-live>")?;
    token(out, provider, now)?;
    writeln!(out, "</div>")?;
    write!(out, "<div id=\"q-{slug}\" data-live>")?;
    quota::bars(out, &provider.quota, now)?;
    writeln!(out, "</div>")?;
    if provider.credential == CredentialKind::Refreshed {
        refreshes(out, provider, now)?;
    }
    write!(out, "<dl id=\"r-{slug}\" data-live>")?;
    requests(out, provider)?;
    writeln!(out, "</dl>")?;
    if provider.credential == CredentialKind::Refreshed && provider.enabled {
        writeln!(
            out,
            "<button type=\"button\" id=\"b-{slug}\" data-post=\"/-/refresh/{}\" \
             data-done=\"{name}: refreshed.\" aria-describedby=\"n-{slug}\" hidden>Refresh now</button>",
            in_path(&provider.slug)
        )?;
    }
    writeln!(out, "</article>")
}

/// The state as a word and a distinct shape, so that colour is not the only sign.
fn badge(state: State) -> String {
    let shape = match state {
        State::Ready => "<circle class=\"full\" cx=\"6\" cy=\"6\" r=\"4.5\"/>",
        State::Refreshing => "<path class=\"line\" d=\"M10.2 4.6A4.5 4.5 0 1 0 10.5 6\"/>",
        State::Failing => "<path class=\"full\" d=\"M6 1 11.5 11H.5z\"/>",
        State::Unavailable => "<path class=\"line\" d=\"M2 2l8 8M10 2l-8 8\"/>",
        State::CoolingDown => "<path class=\"line\" d=\"M4 1.5v9M8 1.5v9\"/>",
        State::Disabled => "<circle class=\"line\" cx=\"6\" cy=\"6\" r=\"4\"/>",
    };
    format!("<svg viewBox=\"0 0 12 12\" aria-hidden=\"true\">{shape}</svg> {}", state.words())
}

fn trouble(out: &mut String, provider: &ProviderReport, now: Timestamp) -> fmt::Result {
    if provider.problem.is_some() || provider.advice.is_some() {
        write!(out, "<div class=\"problem\">")?;
        if let Some(problem) = &provider.problem {
            write!(out, "<p><strong>{}</strong></p>", Text(problem))?;
        }
        if let Some(until_at) = provider.cooldown_until {
            let left = countdown(until_at, now);
            write!(out, "<p><strong>Passed over for {left} more</strong></p>")?;
        }
        if let Some(advice) = &provider.advice {
            write!(out, "<p>{}</p>", with_commands(advice))?;
        }
        if let Some(at) = provider.refresh.next_attempt_at.filter(|at| *at > now) {
            write!(out, "<p class=\"muted\">Next try in {}</p>", countdown(at, now))?;
        }
        write!(out, "</div>")?;
    }
    resting_models(out, provider, now)?;
    if let Some(warning) = &provider.warning {
        write!(out, "<div class=\"problem\"><p><strong>{}</strong></p></div>", Text(warning))?;
    }
    if let Some(warning) = provider.login_due() {
        write!(out, "<div class=\"problem\"><p>{}</p></div>", with_commands(warning))?;
    }
    Ok(())
}

/// The models that are passed over while the provider serves others.
fn resting_models(out: &mut String, provider: &ProviderReport, now: Timestamp) -> fmt::Result {
    if provider.resting_models.is_empty() {
        return Ok(());
    }
    write!(out, "<div class=\"problem\">")?;
    for one in &provider.resting_models {
        let (model, left) = (Text(&one.model), countdown(one.until, now));
        write!(out, "<p>Passed over for <code>{model}</code> for {left} more</p>")?;
    }
    write!(out, "</div>")
}

/// Marks up the commands, which stand in backticks.
fn with_commands(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        let (begin, end) = if index % 2 == 1 { ("<code>", "</code>") } else { ("", "") };
        // Writing to a text does not fail.
        let _ = write!(out, "{begin}{}{end}", Text(part));
    }
    out
}

/// The time left until `at`; the script keeps it current.
fn countdown(at: Timestamp, now: Timestamp) -> String {
    format!("<span class=\"n\" data-until=\"{}\">{}</span>", at.as_millis(), until(at, now))
}

fn token(out: &mut String, provider: &ProviderReport, now: Timestamp) -> fmt::Result {
    let Some(token) = &provider.token else {
        return write!(out, "<p class=\"muted\">{}</p>", without_token(provider));
    };
    let Some(expires_at) = token.expires_at else {
        return write!(out, "<p>Token from a file, without an expiry</p>");
    };
    let is_over = expires_at.millis_since(now) <= 0;
    write!(out, "<p class=\"line\">")?;
    if is_over {
        write!(out, "<span>Token <b>expired</b></span>")?;
    } else {
        write!(out, "<span>Token: <b>{}</b> left</span>", countdown(expires_at, now))?;
    }
    if let Some(due) = token.refresh_due_at.filter(|due| !is_over && due.millis_since(now) > 0) {
        let left = countdown(due, now);
        write!(out, " <span class=\"muted\"><i class=\"key\"></i>refresh in {left}</span>")?;
    }
    if let Some(grant) = provider.grant.as_ref().filter(|grant| *grant != "refresh_token") {
        write!(out, " <span class=\"muted\">by {}</span>", Text(grant))?;
    }
    write!(out, "</p>")?;
    life(out, token, expires_at, now)?;
    let Some(refresh_token) = &provider.refresh_token else { return Ok(()) };
    let left = countdown(refresh_token.expires_at, now);
    write!(out, "<p class=\"muted\">Refresh token: {left} left</p>")
}

fn without_token(provider: &ProviderReport) -> &'static str {
    match provider.credential {
        CredentialKind::Refreshed if !provider.enabled => "Disabled in the configuration",
        CredentialKind::Refreshed => "No token yet",
        CredentialKind::File => "Another program keeps the credential in a file",
        CredentialKind::Stored => "Refreshing is off, and there is no usable stored token",
        CredentialKind::Static | CredentialKind::Missing => {
            "A fixed credential: nothing to refresh"
        }
        CredentialKind::Passthrough => "The client's own credential is passed on",
        CredentialKind::None => "No credential is sent",
    }
}

/// The token's life from left to right: the part that is left, and the time of its refresh.
fn life(
    out: &mut String,
    token: &TokenReport,
    expires_at: Timestamp,
    now: Timestamp,
) -> fmt::Result {
    let Some(obtained_at) = token.obtained_at else {
        return write!(
            out,
            "<p class=\"scale muted\"><span>kept by another program</span><span>expires {} UTC</span></p>",
            time(expires_at, now)
        );
    };
    let lifetime = expires_at.millis_since(obtained_at).max(1);
    // In thousandths of the lifetime.
    let place = |at: Timestamp| (at.millis_since(obtained_at) * 1000 / lifetime).clamp(0, 1000);
    let gone = place(now);
    write!(
        out,
        "<svg class=\"life\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\" \
         data-from=\"{}\" data-to=\"{}\"><rect class=\"all\" width=\"1000\" height=\"10\"/><rect \
         class=\"left\" x=\"{gone}\" width=\"{}\" height=\"10\"/>",
        obtained_at.as_millis(),
        expires_at.as_millis(),
        1000 - gone
    )?;
    if let Some(due) = token.refresh_due_at {
        let at = place(due);
        write!(out, "<path class=\"due\" d=\"M{at} 0V10\"/>")?;
    }
    write!(
        out,
        "</svg><p class=\"scale muted\"><span>issued {}</span><span>expires {} UTC</span></p>",
        time(obtained_at, now),
        time(expires_at, now)
    )
}

fn refreshes(out: &mut String, provider: &ProviderReport, now: Timestamp) -> fmt::Result {
    let (slug, history) = (Text(&provider.slug), &provider.refresh.history);
    write!(out, "<div id=\"h-{slug}\" data-live>")?;
    let (fine, failed) = (count(provider.refresh.successes), count(provider.refresh.failures));
    write!(
        out,
        "<p class=\"line\"><span>Refreshes</span> <span class=\"muted\">{fine} succeeded, {failed} \
         failed</span></p>"
    )?;
    if history.iter().len() > 0 {
        chart::draw(out, history, now)?;
    }
    writeln!(out, "</div>")?;
    if history.iter().len() == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "<details><summary>The last refreshes one by one</summary><div class=\"wide\" \
         tabindex=\"0\" role=\"region\" aria-label=\"The last refreshes of {}\" id=\"l-{slug}\" data-live>",
        Text(&provider.name)
    )?;
    chart::list(out, history, now)?;
    writeln!(out, "</div></details>")
}

fn requests(out: &mut String, provider: &ProviderReport) -> fmt::Result {
    let requests = &provider.requests;
    let first_byte = requests.first_byte.map_or_else(
        || "–".to_owned(),
        |latency| {
            format!("{} <small>p95 {}</small>", millis(latency.p50_ms), millis(latency.p95_ms))
        },
    );
    for (name, value) in [
        ("Requests", count(requests.total)),
        ("Under way", count(requests.in_flight)),
        ("Errors", count(requests.errors)),
        ("First byte", first_byte),
    ] {
        write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>")?;
    }
    if provider.tunnels.total > 0 {
        let TunnelsReport { open, received_bytes, sent_bytes, .. } = provider.tunnels;
        write!(
            out,
            "<div><dt>WebSockets</dt><dd>{} <small>{} in, {} out</small></dd></div>",
            count(open),
            bytes(received_bytes),
            bytes(sent_bytes)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
