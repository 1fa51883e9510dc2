//! The page: everything in one file, nothing fetched from anywhere.

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// uPlot 1.6, by Leon Sorokin, under the MIT licence, which lies beside it.
const PLOT_SCRIPT: &str = include_str!("uplot/uPlot.iife.js");
const PLOT_STYLE: &str = include_str!("uplot/uPlot.min.css");

/// The page about this data, a JSON text.
pub(super) fn page(title: &str, data: &str) -> String {
    // In a script, only this could end it or begin a comment.
    let data = data.replace('<', "\\u003c");
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let parts = [
        ("{{title}}", title.as_str()),
        ("{{plot style}}", PLOT_STYLE),
        ("{{style}}", STYLE),
        ("{{plot script}}", PLOT_SCRIPT),
        ("{{script}}", SCRIPT),
        ("{{data}}", data.as_str()),
    ];
    // In one pass from left to right: what is put in is not looked at again.
    let mut page = String::new();
    let mut rest = TEMPLATE;
    for (mark, text) in parts {
        let (before, after) = rest.split_once(mark).expect("the template has all marks in order");
        page.push_str(before);
        page.push_str(text);
        rest = after;
    }
    page + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_everything_in_it_and_cannot_be_broken_by_its_data() {
        let page = page("a<b", r#"{"subject":"</script><script>alert(1)</script>{{script}}"}"#);
        assert!(page.contains("<title>a&lt;b</title>"));
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("uPlot") && page.contains(r"\u003c/script>"));
        for outside in ["src=\"http", "href=\"http", "@import", "url(http", "fetch("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
