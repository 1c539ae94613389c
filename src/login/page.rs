//! The page for the returning browser: the outcome, and nothing else.

use crate::report::html::Text;

/// The header fields of every page, which forbid storing, running and embedding anything, and referrers.
pub(crate) const FIELDS: [(&str, &str); 6] = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Connection", "close"),
];

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallbackPage {
    /// HTTP status.
    pub status: u16,
    /// HTML.
    pub html: String,
}

/// The login is done and stored.
pub(crate) fn done(provider: &str) -> CallbackPage {
    let text = format!("evertoken has its token for {provider}. You can close this page.");
    page(200, "Logged in", &text)
}

/// The login failed.
pub(crate) fn failed(why: &str) -> CallbackPage {
    page(400, "Not logged in", &format!("{why}."))
}

/// The callback does not belong to this login.
pub(crate) fn ignored(why: &str) -> CallbackPage {
    let text = format!("This has nothing to do with the login that evertoken waits for: {why}.");
    page(400, "Ignored", &text)
}

/// Any other request.
pub(crate) fn elsewhere() -> CallbackPage {
    page(404, "Nothing here", "evertoken waits here for a login, at another address.")
}

fn page(status: u16, title: &str, text: &str) -> CallbackPage {
    let (title, text) = (Text(title), Text(text));
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} - evertoken</title>\n\
         </head>\n<body>\n<h1>{title}</h1>\n<p>{text}</p>\n</body>\n</html>\n"
    );
    CallbackPage { status, html }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_text() {
        let page = failed("<script>alert('x')</script> & \"more\"");
        assert_eq!(page.status, 400);
        assert!(page.html.contains(
            "<p>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;.</p>"
        ));
        assert!(done("P<b>").html.contains("P&lt;b&gt;"));
        assert!(ignored("y").html.contains("Ignored") && elsewhere().status == 404);
    }
}
