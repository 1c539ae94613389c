//! The addresses at which clients come, as a part of the page. Pure.

use std::fmt::{self, Write};

use crate::clock::Timestamp;
use crate::report::html::Text;
use crate::report::listeners::ListenerReport;
use crate::report::words::{bytes, count};

const NUMBERS: [&str; 4] = ["Open", "Total", "In", "Out"];

/// The section, or nothing for a report of an evertoken without them.
pub(super) fn section(listeners: &[ListenerReport], now: Timestamp) -> String {
    let mut out = String::new();
    if !listeners.is_empty() {
        // Writing to a text does not fail.
        let _ = write_section(&mut out, listeners, now);
    }
    out
}

fn write_section(out: &mut String, listeners: &[ListenerReport], now: Timestamp) -> fmt::Result {
    write!(
        out,
        "<section class=\"tokens\" aria-labelledby=\"n-listeners\"><h2 id=\"n-listeners\">Connections of clients</h2>\n\
         <div class=\"wide\" tabindex=\"0\" role=\"region\" aria-labelledby=\"n-listeners\" id=\"listeners\" \
         data-live><table><thead><tr><th rowspan=\"1\" scope=\"col\">Address</th>"
    )?;
    for name in NUMBERS {
        write!(out, "<th scope=\"col\">{name}</th>")?;
    }
    write!(out, "</tr></thead><tbody>")?;
    for listener in listeners {
        row(out, listener, now)?;
    }
    writeln!(out, "</tbody></table></div></section>")
}

fn row(out: &mut String, listener: &ListenerReport, now: Timestamp) -> fmt::Result {
    write!(out, "<tr><th scope=\"row\">{}", Text(&listener.address))?;
    let remarks = listener.remarks(now).join("; ");
    if !remarks.is_empty() {
        write!(out, "<br><small>{}</small>", Text(&remarks))?;
    }
    write!(out, "</th>")?;
    let numbers = listener.connections.map(|one| {
        [count(one.open), count(one.total), bytes(one.received_bytes), bytes(one.sent_bytes)]
    });
    for number in numbers.unwrap_or_else(|| ["–"; 4].map(str::to_owned)) {
        write!(out, "<td>{number}</td>")?;
    }
    write!(out, "</tr>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::listeners::sample;

    #[test]
    fn listeners_are_rows() {
        let now = Timestamp::from_secs(1_800_014_400);
        assert_eq!(section(&[], now), "");
        let uncounted = ListenerReport {
            address: "unix:/run/<b>".to_owned(),
            configured: None,
            connections: None,
            certificate: None,
            ..sample()
        };
        let html = section(&[sample(), uncounted], now);
        for part in [
            "<th scope=\"row\">https://127.0.0.1:8443<br><small>configured as &lt;localhost&gt;:8443; 2 handshakes failed; \
             certificate expires in 3 d 00 h</small></th><td>3</td><td>1,234</td><td>1.2 MB</td><td>999 B</td></tr>",
            "<th scope=\"row\">unix:/run/&lt;b&gt;</th><td>–</td><td>–</td><td>–</td><td>–</td></tr>",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
    }
}
