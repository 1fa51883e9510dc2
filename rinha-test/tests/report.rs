//! The page of a run, opened in a browser without a window: no error, all plots drawn, and nothing
//! wider than the screen, on a desktop and on a phone, in light and in dark.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use rinha_test::report;
use rinha_test::scenario::{self, ProcessorState};
use rinha_test::stress::Summary;
use rinha_test::stress::figures::{Figures, Percentile, Round, Sample};
use rinha_test::stress::timeline::{AuditSeen, StageSeen};

/// Browsers, by the names that they are installed under.
const BROWSERS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The plots of a round in which everything is known.
const PLOTS: &str = "Latency, Latency distribution, Throughput, Backlog, Settled, Money, CPU, Memory, \
                     Throttled, Disk";

/// What is put into the page to look at it from inside: it tells its frame the plots, those whose
/// canvas has no colour on it beyond grid and text, and how much wider than the screen it is.
const PROBE: &str = r"
<script>
setTimeout(() => {
  const lines = ['--one', '--two', '--three'].map((name) => {
    const probe = document.createElement('i');
    probe.style.color = getComputedStyle(document.documentElement).getPropertyValue(name);
    document.body.append(probe);
    const colour = getComputedStyle(probe).color.match(/\d+/g).map(Number);
    probe.remove();
    return colour;
  });
  const isLine = (data, at) => data[at + 3] > 200 && lines.some((line) => line.every((part, i) => Math.abs(part - data[at + i]) < 8));
  const drawn = (canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) count += isLine(data, at) ? 1 : 0;
    return count;
  };
  const figures = [...document.querySelectorAll('figure')];
  const empty = figures.filter((figure) => drawn(figure.querySelector('canvas')) < 50);
  const { scrollWidth, clientWidth } = document.documentElement;
  const wide = scrollWidth - clientWidth;
  const outside = figures.filter((figure) => figure.querySelector('canvas').getBoundingClientRect().right > window.innerWidth);
  parent.postMessage(JSON.stringify({
    plots: document.documentElement.dataset.plots,
    empty: empty.map((figure) => figure.querySelector('h3').textContent),
    outside: outside.length, wide, errors: window.probeErrors,
    verdict: document.getElementById('verdict').textContent,
    paper: getComputedStyle(document.body).backgroundColor,
  }), '*');
}, 500);
</script>";

const CATCH: &str = "<script>window.probeErrors = []; \
    window.addEventListener('error', (event) => window.probeErrors.push(event.message));</script>";

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let all = BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let mut all = all;
    all.find(|file| file.is_file())
}

/// A round with something of everything.
fn round() -> Round {
    let sample = |at: u32| {
        let at_s = f64::from(at) * 0.25;
        Sample {
            at_s,
            accepted_per_s: at_s * 9.0,
            failed_per_s: f64::from(at % 7),
            p50_ms: Some(0.1 + at_s / 100.0),
            p99_ms: Some(1.0 + f64::from(at % 5)),
            max_ms: Some(9.0 + f64::from(at % 9)),
            backlog: Some(i64::from(at % 40) * 10),
            default_requests: Some(u64::from(at) * 100),
            fallback_requests: Some(u64::from(at) * 7),
            net: Some(f64::from(at) * 1234.5),
            cpus: (at != 3).then_some(0.5 + f64::from(at % 3) / 10.0),
            anonymous_bytes: Some(20 << 20 | u64::from(at) << 12),
            cache_bytes: Some(10 << 20),
            throttled_periods: Some(u64::from(at / 30)),
            disk_bytes: at.is_multiple_of(8).then_some(u64::from(at) << 14),
        }
    };
    let stage = |at_s, delay_ms, failing| StageSeen {
        at_s,
        default: ProcessorState { delay_ms, failing },
        fallback: ProcessorState::default(),
    };
    let audit = AuditSeen {
        at_s: 10.0,
        from: "2026-11-24T10:00:00.000Z".to_owned(),
        to: "2026-11-24T10:00:13.500Z".to_owned(),
        ours: [10, 2],
        processors: [10, 2],
        cents_equal: true,
        inconsistencies: 0,
        inconsistencies_rehearsal: 0,
        failures: Vec::new(),
    };
    let latency = |factor: f64| {
        let point = |(percent, ms): (f64, f64)| Percentile { percent, ms: ms * factor };
        [(0.0, 0.1), (50.0, 0.2), (90.0, 0.5), (99.0, 1.0), (99.9, 4.0), (100.0, 20.0)]
            .map(point)
            .to_vec()
    };
    Round {
        subject: "a system".to_owned(),
        begun: "2026-11-24T10:00:00.000Z".to_owned(),
        figures: Figures {
            right: true,
            throttled_periods: Some(5),
            score: 1234.5,
            ..Figures::default()
        },
        stages: vec![stage(10.0, 100, false), stage(20.0, 0, true), stage(30.0, 0, false)],
        audits: vec![audit],
        samples: (1..240).map(sample).collect(),
        latency: latency(1.0),
        floor_latency: latency(0.5),
        ..Round::default()
    }
}

/// Shows a page in a frame of this width, and gives what it tells of itself.
fn look(browser: &Path, folder: &Path, width: u32, is_dark: bool) -> String {
    let frame = folder.join(format!("frame-{width}-{is_dark}.html"));
    let html = format!(
        "<body style=margin:0><iframe src=probed.html width={width} height=900></iframe><pre id=told>\
         nothing</pre><script>addEventListener('message', (event) => {{ \
         document.getElementById('told').textContent = event.data; }});</script>"
    );
    std::fs::write(&frame, html).unwrap();
    let scheme = if is_dark { "0" } else { "1" };
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .args(["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", frame.display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    let console: Vec<_> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:?}");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = dom.split("<pre id=\"told\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    told.unwrap_or_else(|| panic!("{dom}\n{log}")).replace("&gt;", ">")
}

#[test]
fn the_page_draws_all_plots_on_every_screen_without_an_error() {
    let Some(browser) = browser() else {
        eprintln!(
            "skipped: there is no Chromium to open the page (Debian: apt-get install chromium)"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let scenario = scenario::load("contest", &[]).unwrap();
    let two = [Summary::new(vec![round(), round()]), Summary::new(vec![round()])];
    report::write(folder.path(), &scenario, &two).unwrap();
    let page = std::fs::read_to_string(folder.path().join(report::PAGE)).unwrap();
    let probed = page.replacen("<head>", &format!("<head>{CATCH}"), 1) + PROBE;
    std::fs::write(folder.path().join("probed.html"), probed).unwrap();
    for (width, is_dark) in [(1440, false), (390, false), (390, true)] {
        let told = look(&browser, folder.path(), width, is_dark);
        let expected = format!(
            r#"{{"plots":"{PLOTS}","empty":[],"outside":0,"wide":0,"errors":[],"verdict":"All is right.","#
        );
        assert!(told.starts_with(&expected), "{width}: {told}");
        let paper = if is_dark { "rgb(18, 21, 28)" } else { "rgb(255, 255, 255)" };
        assert!(told.contains(paper), "{told}");
    }
}
