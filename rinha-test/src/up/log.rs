//! One readable log out of the output of many processes: whole lines, each with the name of its
//! process in front, in the order in which they came.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ledger::clock;

/// The name in front of the runner's own lines.
pub const RUNNER_NAME: &str = "up";

/// A line longer than this is broken into several, so that a process that never ends its line
/// cannot fill the memory.
pub const LINE_BYTES_MAX: u64 = 256 << 10;

/// The colours of the names, by the order in which processes were added.
const COLOURS: [&str; 6] = ["\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[31m"];
const COLOUR_OFF: &str = "\x1b[0m";

/// How much the runner's own line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Someone might want to know.
    Info,
    /// Someone should look into it.
    Warn,
}

/// The merged log. Clones write to the same place.
#[derive(Clone)]
pub struct Log {
    sink: Arc<Mutex<Box<dyn Write + Send>>>,
    width: usize,
    colour: bool,
}

impl Log {
    /// A log on standard output, coloured only on a terminal, for processes with these names.
    pub fn to_stdout<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let stdout = io::stdout();
        let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self::to_sink(Box::new(stdout), colour, names)
    }

    /// A log to anywhere else.
    pub fn to_sink<'a>(
        sink: Box<dyn Write + Send>,
        colour: bool,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let longest = names.into_iter().map(str::len).max().unwrap_or(0);
        Self { sink: Arc::new(Mutex::new(sink)), width: longest.max(RUNNER_NAME.len()), colour }
    }

    /// Writes a line of the runner itself.
    pub fn say(&self, level: Level, text: &str) {
        let level = match level {
            Level::Info => "INFO",
            Level::Warn => "WARN",
        };
        let line = format!("{}  {level:>4} {text}", clock::now());
        self.write(&self.prefix(RUNNER_NAME, None), line.as_bytes());
    }

    /// Writes lines as they are, without a name in front, and nothing in between them.
    pub fn print(&self, text: &str) {
        self.write_whole(text.as_bytes());
    }

    /// Copies what a process says to the log until it says no more. `place` is its number among
    /// the processes, for its colour.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(
        &self,
        name: &str,
        place: usize,
        output: impl Read + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let log = self.clone();
        let prefix = self.prefix(name, Some(place));
        std::thread::Builder::new()
            .name(format!("log {name}"))
            .spawn(move || log.copy(&prefix, output))
    }

    fn copy(&self, prefix: &str, output: impl Read) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            // An error ends the output as its end does: a pipe has no other.
            let read = output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if !matches!(read, Ok(count) if count > 0) {
                return;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            self.write(prefix, text);
        }
    }

    fn prefix(&self, name: &str, place: Option<usize>) -> String {
        let width = self.width;
        match place {
            Some(place) if self.colour => {
                let colour = COLOURS[place % COLOURS.len()];
                format!("{colour}{name:width$} |{COLOUR_OFF} ")
            }
            _ => format!("{name:width$} | "),
        }
    }

    fn write(&self, prefix: &str, text: &[u8]) {
        let mut line = Vec::with_capacity(prefix.len() + text.len() + 1);
        line.extend_from_slice(prefix.as_bytes());
        line.extend_from_slice(text);
        line.push(b'\n');
        self.write_whole(&line);
    }

    fn write_whole(&self, bytes: &[u8]) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that nobody reads any more is no reason to end the processes.
        let _ = sink.write_all(bytes).and_then(|()| sink.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        /// Takes a few bytes at a time, as a slow terminal does: only a lock keeps lines whole.
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(7);
            self.0.lock().unwrap().extend_from_slice(&bytes[..count]);
            std::thread::yield_now();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn lines_of_many_processes_stay_whole_and_none_is_lost() {
        let memory = Memory::default();
        let names = ["lb", "store", "api-1"];
        let log = Log::to_sink(Box::new(memory.clone()), false, names);
        let threads: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let lines: Vec<_> =
                    (0..200).map(|i| format!("{name} says {i} of many words\n")).collect();
                let text = lines.concat();
                log.follow(name, place, io::Cursor::new(text)).unwrap()
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let text = memory.text();
        assert_eq!(text.lines().count(), 600);
        for name in names {
            let said: Vec<_> = text.lines().filter(|l| l.starts_with(name)).collect();
            let expected: Vec<_> =
                (0..200).map(|i| format!("{name:5} | {name} says {i} of many words")).collect();
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn a_last_line_without_an_end_is_not_lost_and_bytes_are_kept() {
        let memory = Memory::default();
        let log = Log::to_sink(Box::new(memory.clone()), false, ["lb"]);
        log.copy("lb | ", &b"one\n\ntwo \xff"[..]);
        assert_eq!(*memory.0.lock().unwrap(), b"lb | one\nlb | \nlb | two \xff\n");
    }

    #[test]
    fn an_endless_line_is_broken_into_pieces() {
        let memory = Memory::default();
        let log = Log::to_sink(Box::new(memory.clone()), false, ["lb"]);
        let length = usize::try_from(LINE_BYTES_MAX).unwrap() + 3;
        log.copy("", vec![b'x'; length].as_slice());
        let lengths: Vec<_> = memory.text().lines().map(str::len).collect();
        assert_eq!(lengths, [length - 3, 3]);
    }

    #[test]
    fn names_are_coloured_only_where_told_to() {
        for (colour, expected) in [(false, "lb | hello\n"), (true, "\x1b[33mlb |\x1b[0m hello\n")] {
            let memory = Memory::default();
            let log = Log::to_sink(Box::new(memory.clone()), colour, ["lb"]);
            log.follow("lb", 1, &b"hello\n"[..]).unwrap().join().unwrap();
            assert_eq!(memory.text(), expected);
        }
    }

    #[test]
    fn the_runners_own_lines_say_when_and_how_much_they_matter() {
        let memory = Memory::default();
        let log = Log::to_sink(Box::new(memory.clone()), true, ["store"]);
        log.say(Level::Warn, "store is gone");
        let text = memory.text();
        assert!(text.starts_with("up    | 20"), "{text}");
        assert!(text.ends_with("Z  WARN store is gone\n"), "{text}");
    }
}
