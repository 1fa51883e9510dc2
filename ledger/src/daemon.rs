//! What every daemon does alike: settings from flags and environment, logs, signals, exit codes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, ValueEnum};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::format::JsonFields;

use crate::log_limit::{Limited, tell_all};

/// The settings cannot be used as they are (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// Stored data is damaged (`EX_DATAERR`).
pub const EXIT_DATA: u8 = 65;
/// Something that should not happen, happened (`EX_SOFTWARE`).
pub const EXIT_SOFTWARE: u8 = 70;

/// How a daemon logs.
#[derive(Args, Clone, Copy, Debug)]
pub struct LogSettings {
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "human", value_enum)]
    pub log_format: LogFormat,
    /// The least level that is logged
    #[arg(long, value_name = "LEVEL", default_value = "info", value_enum)]
    pub log_level: LogLevel,
}

/// The look of log lines.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// The least level that is logged.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What stops the daemon
    Error,
    /// And what someone should look into
    Warn,
    /// And what someone might want to know
    Info,
    /// And what helps to find a fault
    Debug,
}

/// A daemon's settings.
pub trait Settings: CommandFactory + FromArgMatches {
    /// How the names of its environment variables begin, for example `PAYROUTER_LB_`.
    const ENVIRONMENT_PREFIX: &'static str;

    /// What is wrong with the settings as a whole, in a sentence.
    ///
    /// # Errors
    /// Settings that contradict each other.
    fn check(&self) -> Result<(), String>;
}

/// Reads settings from the command line and the environment. Where they cannot be used it says why
/// and ends the process with exit code 64.
#[must_use]
pub fn settings<S: Settings>() -> S {
    settings_from(std::env::args_os())
}

/// The settings of the daemon that is to be asked how it is, if that is what the command line wants:
/// `api check` with the flags or variables of the daemon itself.
#[must_use]
pub fn settings_of_check<S: Settings>() -> Option<S> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    arguments.next_if(|argument| argument == "check")?;
    let program = std::env::args_os().next().unwrap_or_default();
    Some(settings_from(std::iter::once(program).chain(arguments)))
}

/// As [`settings`], from these arguments, the first of which is the name of the program.
#[must_use]
pub fn settings_from<S: Settings>(arguments: impl IntoIterator<Item = OsString>) -> S {
    match read_settings(arguments, std::env::vars_os().map(|(name, _)| name)) {
        Ok(settings) => settings,
        Err(error) => {
            // There is nowhere else to say that this could not be said.
            let _ = error.print();
            std::process::exit(if informs(&error) { 0 } else { i32::from(EXIT_USAGE) });
        }
    }
}

/// Whether this is no error but what was asked for: the help or the version.
fn informs(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

fn read_settings<S: Settings>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = OsString>,
) -> Result<S, clap::Error> {
    let (mut command, known) = command_and_variables::<S>();
    let matches = command.try_get_matches_from_mut(arguments);
    let matches = match matches {
        Err(error) if informs(&error) => return Err(error),
        matches => matches,
    };
    for name in environment {
        let name = name.to_string_lossy();
        if name.starts_with(S::ENVIRONMENT_PREFIX) && !known.contains(name.as_ref()) {
            let what = format!(
                "the environment variable {name} is not a setting; those are: {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            );
            return Err(command.error(ErrorKind::UnknownArgument, what));
        }
    }
    let settings = S::from_arg_matches(&matches?).map_err(|error| error.format(&mut command))?;
    match settings.check() {
        Ok(()) => Ok(settings),
        Err(what) => Err(command.error(ErrorKind::ArgumentConflict, what)),
    }
}

/// The flags of a daemon, with their environment variables.
#[must_use]
pub fn command<S: Settings>() -> clap::Command {
    command_and_variables::<S>().0
}

fn command_and_variables<S: Settings>() -> (clap::Command, BTreeSet<String>) {
    let mut known = BTreeSet::new();
    let command = S::command().mut_args(|argument| {
        let is_setting = argument.get_long().is_some() && !argument.get_id().as_str().eq("help");
        if !is_setting {
            return argument;
        }
        let name = variable_name::<S>(argument.get_id().as_str());
        known.insert(name.clone());
        if is_left_empty(&argument, &name) {
            return argument;
        }
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            return argument.env(name).value_parser(BoolishValueParser::new());
        }
        argument.env(name)
    });
    (command, known)
}

/// Whether this is a setting that may be left out, and its variable is there and empty: what a compose file
/// makes of a variable that is not set. A setting with a default is none of these, so that an empty
/// folder, for example, is an error and not another folder.
fn is_left_empty(argument: &clap::Arg, variable: &str) -> bool {
    let may_be_left_out = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
        && !argument.is_required_set()
        && argument.get_default_values().is_empty();
    may_be_left_out && std::env::var_os(variable).is_some_and(|value| value.is_empty())
}

fn variable_name<S: Settings>(argument: &str) -> String {
    format!("{}{}", S::ENVIRONMENT_PREFIX, argument.to_uppercase().replace('-', "_"))
}

/// Sends all log lines to standard error, from each place in the code only so many
/// ([`crate::log_limit`]).
pub fn start_logging(settings: LogSettings) {
    let level = match settings.log_level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    let format = format().with_target(false);
    match settings.log_format {
        LogFormat::Human => subscriber
            .with_ansi(std::io::stderr().is_terminal())
            .event_format(Limited::text(format))
            .init(),
        LogFormat::Json => subscriber
            .fmt_fields(JsonFields::new())
            .event_format(Limited::json(format.json().flatten_event(true)))
            .init(),
    }
}

/// From now on every file and folder that this process creates is for its owner only, also where a
/// library creates it.
pub fn create_files_privately() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Lets the process have as many descriptors as the operating system allows it, and checks that this
/// is enough.
///
/// # Errors
/// It is not, in a sentence that names the settings which need them.
pub fn reserve_descriptors(needed: u64, settings: &str) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!("the limit of open descriptors cannot be raised: {error}");
            limit.current
        }
    };
    match allowed {
        Some(allowed) if allowed < needed => Err(format!(
            "{settings} and what else is open need {needed} descriptors, and this process may have \
             {allowed} (ulimit -n): lower the one or raise the other"
        )),
        _ => {
            make_room_for_descriptors(needed);
            Ok(())
        }
    }
}

/// Descriptors that are made room for at most: half a mebibyte of the kernel's memory.
const ROOM_DESCRIPTORS_MAX: u64 = 1 << 16;

/// Lets the kernel's table of this process's descriptors be as large as it will be needed, before
/// there are other threads. Otherwise it grows with the connections, to 256, 512, 1,024 and so on,
/// and each time that one thread makes it grow while there are others, it waits for all processors to
/// have passed a point of rest: 6 to 15 ms in which an event loop answers nobody.
pub fn make_room_for_descriptors(count: u64) {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(count);
    let count = count.min(allowed).clamp(1, ROOM_DESCRIPTORS_MAX);
    let last = i32::try_from(count - 1).expect("it is small");
    // It is taken and given back; the table stays as large.
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last) {
        tracing::debug!("no room is made for {count} descriptors: {error}");
    }
}

/// How many calls of [`expecting_panics`] are under way.
static PANICS_EXPECTED: AtomicUsize = AtomicUsize::new(0);

/// From now on a panic of any thread is logged and aborts the process. What goes on after a panic
/// may have done half of its work; a process that is started again takes it up from its journals.
pub fn abort_on_panic() {
    abort_on_panic_after(|_| ());
}

/// As [`abort_on_panic`], with something that is done before the process is aborted. It is given the
/// panic's message.
pub fn abort_on_panic_after(last_act: impl Fn(&str) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        let (what, place) = (panic_message(panic.payload()), place(panic));
        if PANICS_EXPECTED.load(Ordering::Relaxed) > 0 {
            return tracing::warn!("a panic at {place}: {what}");
        }
        let trace = std::backtrace::Backtrace::capture();
        tracing::error!("the process is given up because of a panic at {place}: {what}");
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!("{trace}");
        }
        tell_all();
        last_act(&what);
        std::process::abort();
    }));
}

/// Does what may panic, and gives the panic's message if it does. Until it is done, no panic aborts
/// the process, because the work may be that of several threads.
///
/// # Errors
/// The message of a panic.
pub fn expecting_panics<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    PANICS_EXPECTED.fetch_add(1, Ordering::Relaxed);
    let done = catch_unwind(AssertUnwindSafe(work));
    PANICS_EXPECTED.fetch_sub(1, Ordering::Relaxed);
    done.map_err(|panic| panic_message(panic.as_ref()))
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}

fn place(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}

/// Waits until the process is asked to end, by SIGTERM or SIGINT. It listens from the call on, not
/// only once it is waited for, so that no signal is missed while a process starts. Must be called on
/// a runtime.
///
/// # Errors
/// The operating system refuses to tell of signals.
pub fn shutdown_signal() -> impl Future<Output = std::io::Result<()>> + Send + 'static {
    let armed = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    async move {
        let (mut terminate, mut interrupt) = armed?;
        std::future::poll_fn(|context| {
            if terminate.poll_recv(context).is_ready() || interrupt.poll_recv(context).is_ready() {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
        Ok(())
    }
}

/// Logs how a daemon ended and how many lines were left out, and gives its exit code.
pub fn exit_code(result: Result<(), (u8, String)>) -> ExitCode {
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, what)) => {
            tracing::error!("{what}");
            ExitCode::from(code)
        }
    };
    tell_all();
    code
}

/// The boot id of the machine, all zeros where it has none.
#[must_use]
pub fn boot_id() -> [u8; 16] {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| text.trim().parse::<crate::CorrelationId>().ok())
        .map_or([0; 16], crate::CorrelationId::to_bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Example {
        /// Where to listen
        #[arg(long, default_value_t = 80)]
        port: u16,
        /// The least
        #[arg(long, default_value_t = 0)]
        least_count: u16,
        /// Be quick
        #[arg(long)]
        quick: bool,
        /// Where copies go
        #[arg(long, conflicts_with = "only_here")]
        copies: Option<u16>,
        /// Where there are none
        #[arg(long)]
        only_here: Option<u16>,
        #[command(flatten)]
        log: LogSettings,
    }

    impl Settings for Example {
        const ENVIRONMENT_PREFIX: &'static str = "EXAMPLE_DAEMON_";

        fn check(&self) -> Result<(), String> {
            if self.least_count > self.port {
                return Err("--least-count must not be above --port".to_owned());
            }
            Ok(())
        }
    }

    fn read(arguments: &[&str], environment: &[&str]) -> Result<Example, String> {
        let arguments = std::iter::once("example").chain(arguments.iter().copied());
        read_settings(arguments.map(OsString::from), environment.iter().map(OsString::from))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_has_a_variable_in_the_help() {
        let help = read(&["--help"], &[]).unwrap_err();
        for name in ["PORT", "LEAST_COUNT", "LOG_FORMAT", "LOG_LEVEL"] {
            assert!(help.contains(&format!("EXAMPLE_DAEMON_{name}")), "{help}");
        }
        assert!(!help.contains("EXAMPLE_DAEMON_HELP"), "{help}");
    }

    /// In a process of its own, runs one test of this module again, which finds the variable set.
    fn in_a_process_of_its_own(test: &str) -> std::process::Output {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("daemon::tests::{test}")])
            .env(CHILD_VARIABLE, test)
            .output()
            .unwrap()
    }

    const CHILD_VARIABLE: &str = "LEDGER_DAEMON_TEST_CHILD";

    fn is_child() -> bool {
        std::env::var_os(CHILD_VARIABLE).is_some()
    }

    #[test]
    fn descriptors_are_raised_to_what_is_allowed_and_no_more_is_promised() {
        if is_child() {
            let maximum = getrlimit(Resource::Nofile).maximum.unwrap();
            let few = Rlimit { current: Some(64), maximum: Some(maximum) };
            setrlimit(Resource::Nofile, few).unwrap();
            reserve_descriptors(65, "--all").unwrap();
            assert_eq!(getrlimit(Resource::Nofile).current, Some(maximum));
            let room_for = maximum.min(5_000);
            reserve_descriptors(room_for, "--all").unwrap();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            assert!(size.trim().parse::<u64>().unwrap() >= room_for, "{size}");
            let error = reserve_descriptors(maximum + 1, "--all").unwrap_err();
            assert!(error.contains("--all") && error.contains(&maximum.to_string()), "{error}");
            std::process::exit(7);
        }
        let test = "descriptors_are_raised_to_what_is_allowed_and_no_more_is_promised";
        assert_eq!(in_a_process_of_its_own(test).status.code(), Some(7));
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;

        if is_child() {
            start_logging(LogSettings { log_format: LogFormat::Json, log_level: LogLevel::Info });
            abort_on_panic_after(|what| eprintln!("the last act after {what}"));
            let _ = std::thread::spawn(|| panic!("a half of the work")).join();
            std::process::exit(0);
        }
        let output = in_a_process_of_its_own("a_panic_of_any_thread_ends_the_process");
        assert_eq!(output.status.signal(), Some(rustix::process::Signal::ABORT.as_raw()));
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains("a half of the work") && log.contains("daemon.rs"), "{log}");
        assert!(log.contains("the last act after a half of the work"), "{log}");
    }

    #[test]
    fn a_panic_that_is_expected_ends_nothing() {
        if is_child() {
            abort_on_panic();
            let caught = expecting_panics(|| {
                let helper = std::thread::spawn(|| panic!("of a helping thread"));
                assert!(helper.join().is_err());
                panic!("damaged");
            });
            assert_eq!(caught, Err::<(), _>("damaged".to_owned()));
            std::process::exit(7);
        }
        let output = in_a_process_of_its_own("a_panic_that_is_expected_ends_nothing");
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn a_signal_that_comes_before_it_is_waited_for_is_heard() {
        if is_child() {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let heard = runtime.block_on(async {
                let asked_to_end = shutdown_signal();
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
                asked_to_end.await
            });
            std::process::exit(if heard.is_ok() { 7 } else { 1 });
        }
        let output =
            in_a_process_of_its_own("a_signal_that_comes_before_it_is_waited_for_is_heard");
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn an_unknown_flag_or_variable_is_refused() {
        assert!(read(&["--prot", "1"], &[]).unwrap_err().contains("--port"));
        let error = read(&[], &["EXAMPLE_DAEMON_PROT"]).unwrap_err();
        assert!(error.contains("EXAMPLE_DAEMON_PROT is not a setting"), "{error}");
        assert!(read(&[], &["EXAMPLE_OTHER", "PATH"]).is_ok());
    }

    #[test]
    fn help_and_version_are_given_whatever_the_environment_says() {
        let help = read(&["--help"], &["EXAMPLE_DAEMON_PROT"]).unwrap_err();
        assert!(help.contains("EXAMPLE_DAEMON_PORT"), "{help}");
    }

    #[test]
    fn a_switch_can_be_set_by_a_variable_in_several_words() {
        if is_child() {
            let quick = read(&[], &[]).unwrap().quick;
            std::process::exit(if quick { 7 } else { 8 });
        }
        for (word, code) in [("1", 7), ("true", 7), ("yes", 7), ("0", 8), ("false", 8)] {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "daemon::tests::a_switch_can_be_set_by_a_variable_in_several_words",
                ])
                .env(CHILD_VARIABLE, "1")
                .env("EXAMPLE_DAEMON_QUICK", word)
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(code), "{word}");
        }
    }

    #[test]
    fn an_empty_variable_leaves_out_what_may_be_left_out_and_nothing_else() {
        const TEST: &str = "an_empty_variable_leaves_out_what_may_be_left_out_and_nothing_else";
        if is_child() {
            let example = read(&["--only-here", "9"], &["EXAMPLE_DAEMON_COPIES"]);
            let code = match example {
                Ok(Example { copies: None, only_here: Some(9), port: 80, .. }) => 7,
                Ok(_) => 8,
                Err(error) if error.contains("--port") => 9,
                Err(_) => 10,
            };
            std::process::exit(code);
        }
        for (variable, value, code) in
            [("COPIES", "", 7), ("COPIES", "5", 10), ("COPIES", " ", 10), ("PORT", "", 9)]
        {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &format!("daemon::tests::{TEST}")])
                .env(CHILD_VARIABLE, "1")
                .env(format!("EXAMPLE_DAEMON_{variable}"), value)
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(code), "{variable}={value}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_with_a_sentence() {
        let error = read(&["--port", "1", "--least-count", "2"], &[]).unwrap_err();
        assert!(error.contains("--least-count must not be above --port"), "{error}");
    }
}
