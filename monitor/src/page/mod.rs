//! The live page: one file, with its style and its script in it, that asks nobody but this server.
//!
//! | part | what it is for |
//! |---|---|
//! | [`live`] | what goes to all who watch, once a second |
//! | [`recent`] | how long most took lately |
//! | [`notes`] | the last decisions, in words |
//! | [`ask`] | questions to the store |
//! | [`totals`] | what was settled in a span of time, and the fees |
//! | [`life`] | what happened to a payment |

pub mod ask;
pub mod life;
pub mod live;
pub mod notes;
pub mod recent;
pub mod totals;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
pub use hyper::header::CONTENT_SECURITY_POLICY;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("page.html");

/// The page, and what a browser may do with it.
pub struct Page {
    policy: HeaderValue,
}

impl Page {
    /// The page that this program was built with.
    #[must_use]
    pub fn new() -> Self {
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            source("script"),
            source("style")
        );
        Self { policy: policy.try_into().expect("base64 is fit for a header") }
    }

    /// The page.
    #[must_use]
    pub fn html(&self) -> Bytes {
        Bytes::from_static(HTML.as_bytes())
    }

    /// Nothing is run, shown or asked but what is in the page, by its hash, and this server.
    #[must_use]
    pub fn content_security_policy(&self) -> HeaderValue {
        self.policy.clone()
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands in the page's one element of this name, as a policy names it.
fn source(element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let (_, rest) = HTML.split_once(&begin).expect("the page has it");
    let (content, _) = rest.split_once(&end).expect("the page has its end");
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_that_needs_no_other_and_builds_no_markup_from_data() {
        for element in ["<script>", "<style>"] {
            assert_eq!(HTML.matches(element).count(), 1, "{element}");
        }
        // The name of a vocabulary, which nobody asks for.
        let outside = HTML.replace("http://www.w3.org/2000/svg", "");
        for part in ["http:", "https:", "//", "src=", "@import", "url(", " style=", "innerHTML"] {
            let lines = outside.lines().filter(|line| !line.trim_start().starts_with("// "));
            let with: Vec<_> = lines.filter(|line| line.contains(part)).collect();
            assert!(with.is_empty(), "{part}: {with:?}");
        }
        assert!(!HTML.contains("outerHTML") && !HTML.contains("insertAdjacentHTML"));
        assert!(!HTML.contains("document.write") && !HTML.contains("eval("));
    }

    #[test]
    fn the_policy_names_what_is_in_the_page() {
        let policy = Page::new().content_security_policy();
        let policy = policy.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
