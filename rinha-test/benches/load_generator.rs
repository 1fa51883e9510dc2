//! What the load generator itself can do and costs: floods of the floor server from one core, beside
//! wrk, a generator in C that posts one and the same body. `cargo bench -p rinha-test --bench
//! load_generator`.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rinha_test::load::payments::Payments;
use rinha_test::load::{Meter, Shape, Traffic, Until, drive};
use rinha_test::machine::process;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Rounds, of which the median counts.
const ROUNDS: usize = 3;

/// How long one flood takes.
const SECONDS: u64 = 3;

/// What is tried: microseconds that the server works on each request, and connections. Where it works on
/// none, the generator is what limits the rate, and a time is the generator's own: wrk counts none
/// between an answer and the next request, so the times differ. They are to agree where the server is
/// the limit.
const TRIED: [(u32, u16); 4] = [(0, 1), (0, 64), (20, 16), (20, 64)];

/// The core of the server, and that of the generators.
const CORES: [usize; 2] = [0, 1];

/// What wrk posts.
const SCRIPT: &str = r#"
wrk.method = "POST"
wrk.body = '{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":19.90}'
wrk.headers["Content-Type"] = "application/json"
"#;

/// A flood's figures: requests per second, p50 in microseconds, CPU time per request in microseconds.
type Figures = [f64; 3];

/// The floor server, ended when this is dropped.
struct Floor {
    child: Child,
    authority: String,
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    pin(None, CORES[1])?;
    let has_wrk = Command::new("wrk").arg("-v").output().is_ok();
    if !has_wrk {
        println!(
            "wrk is not installed, so there is nothing to compare with (Debian: apt-get install wrk)"
        );
    }
    println!("medians of {ROUNDS} floods of {SECONDS} s in turn, the generator on one core");
    println!(
        "server's work  connections  requests/s   p50 us  CPU us/request  wrk: requests/s   p50 us  p50 ratio"
    );
    for (busy_us, connections) in TRIED {
        let floor = start_floor(busy_us)?;
        let (mut ours, mut wrks) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(flood(&floor.authority, connections)?);
            if has_wrk {
                wrks.push(wrk(&floor.authority, connections)?);
            }
        }
        let [rate, p50, cpu] = medians(&ours);
        print!("{busy_us:>10} us {connections:>12} {rate:>11.0} {p50:>8.0} {cpu:>15.1}");
        if has_wrk {
            let [wrk_rate, wrk_p50, _] = medians(&wrks);
            print!(" {wrk_rate:>16.0} {wrk_p50:>8.0} {:>10.2}", p50 / wrk_p50);
        }
        println!();
    }
    Ok(())
}

fn start_floor(busy_us: u32) -> Result<Floor, Box<dyn Error>> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rinha-test"))
        .args(["floor", "--listen", "127.0.0.1:0", "--busy-us", &busy_us.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the server has no output")?;
    let mut floor = Floor { child, authority: String::new() };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    line.trim().trim_start_matches("listening on ").clone_into(&mut floor.authority);
    pin(rustix::process::Pid::from_raw(i32::try_from(floor.child.id())?), CORES[0])?;
    Ok(floor)
}

fn pin(process: Option<rustix::process::Pid>, core: usize) -> Result<(), Box<dyn Error>> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(process, &cores)?)
}

fn own_cpu() -> Duration {
    process::usage(std::process::id()).map(|usage| usage.cpu).unwrap_or_default()
}

fn flood(authority: &str, connections: u16) -> Result<Figures, Box<dyn Error>> {
    let traffic = Traffic {
        payments: Payments::new(1, None),
        timeout: Duration::from_secs(5),
        duplicates: 0.0,
        in_pieces: 0.0,
    };
    let until = Until::Elapsed(Duration::from_secs(SECONDS));
    let meter = Arc::new(Meter::start());
    let before = own_cpu();
    drive(Shape::Flood { connections, until }, traffic, authority, &meter, &Arc::default())?;
    let cpu = own_cpu().saturating_sub(before);
    let measured = meter.measured();
    if measured.counts.failed() > 0 {
        return Err(format!("{} requests failed", measured.counts.failed()).into());
    }
    let count = f64::from(u32::try_from(measured.counts.accepted)?);
    let p50_ns = u32::try_from(measured.latency_ns.value_at_quantile(0.5))?;
    Ok([
        count / measured.elapsed.as_secs_f64(),
        f64::from(p50_ns) / 1e3,
        cpu.as_secs_f64() * 1e6 / count,
    ])
}

fn wrk(authority: &str, connections: u16) -> Result<Figures, Box<dyn Error>> {
    let mut script = tempfile::NamedTempFile::with_suffix(".lua")?;
    script.write_all(SCRIPT.as_bytes())?;
    // It inherits this process' core.
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), "--latency", "-s"])
        .arg(script.path())
        .arg(format!("http://{authority}/payments"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word_after = |key: &str| {
        let rest = text.split(key).nth(1)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let told = || format!("wrk says {text}");
    let rate: f64 = word_after("Requests/sec:").ok_or_else(told)?.parse()?;
    let p50 = word_after("50%").ok_or_else(told)?;
    let p50_us: f64 = match (p50.strip_suffix("us"), p50.strip_suffix("ms")) {
        (Some(us), _) => us.parse()?,
        (None, Some(ms)) => ms.parse::<f64>()? * 1e3,
        _ => return Err(told().into()),
    };
    Ok([rate, p50_us, 0.0])
}

fn medians(rounds: &[Figures]) -> Figures {
    [0, 1, 2].map(|figure: usize| {
        let mut values: Vec<_> = rounds.iter().map(|round| round[figure]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}
