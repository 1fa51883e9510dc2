//! A full disk, a failing sync, a clock that steps: a small library that is loaded into processes
//! which know nothing of it (`preload.c`, built when it is needed), and the file that tells it what
//! to do.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::up::process::ProcessSpec;

/// The library.
const SOURCE: &str = include_str!("preload.c");

/// The variable that names the file.
const CONTROL_VARIABLE: &str = "FAULTS_CONTROL";

/// Bytes of a field of the file.
const FIELD_BYTES: u64 = 8;

/// Fields of the file.
const FIELDS_COUNT: u64 = 7;

/// The fields, in the order of `struct control` in `preload.c`.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Field {
    DiskFull,
    BytesLeft,
    SyncFails,
    ClockOffsetMs,
    WritesRefused,
    SyncsRefused,
    ClockReadsShifted,
}

/// Why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PreloadError {
    /// A file cannot be written.
    #[error("cannot use {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The compiler does not take it.
    #[error("the C compiler refuses preload.c: {0}")]
    Compiler(String),
}

/// The library, built.
#[derive(Clone, Debug)]
pub struct Preload {
    library: PathBuf,
    folder: PathBuf,
}

/// What the library does in one process.
#[derive(Debug)]
pub struct Control {
    file: File,
    path: PathBuf,
}

/// How often the library has done something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Writes that were refused or cut short.
    pub writes_refused: u64,
    /// Syncs that were refused.
    pub syncs_refused: u64,
    /// Looks at the clock that saw another time.
    pub clock_reads_shifted: u64,
}

impl Preload {
    /// Builds the library in this folder. Gives nothing where there is no C compiler.
    ///
    /// # Errors
    /// It cannot be written or built.
    pub fn build(folder: &Path) -> Result<Option<Self>, PreloadError> {
        let source = folder.join("preload.c");
        let library = folder.join("preload.so");
        std::fs::write(&source, SOURCE)
            .map_err(|cause| PreloadError::File { path: source.clone(), cause })?;
        let compiler = Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output();
        match compiler {
            Ok(output) if output.status.success() => {
                Ok(Some(Self { library, folder: folder.to_owned() }))
            }
            Ok(output) => {
                Err(PreloadError::Compiler(String::from_utf8_lossy(&output.stderr).into_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(PreloadError::File { path: "cc".into(), cause }),
        }
    }

    /// Has a process load the library when it is started, by way of `env`.
    ///
    /// # Errors
    /// The file that tells the library what to do cannot be created.
    pub fn load_into(&self, spec: &mut ProcessSpec) -> Result<Control, PreloadError> {
        let path = self.folder.join(format!("{}.control", spec.name));
        let control = Control::create(&path)?;
        let assign = |name: &str, value: &Path| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            word
        };
        let program = std::mem::replace(&mut spec.program, "env".into());
        let mut arguments =
            vec![assign("LD_PRELOAD", &self.library), assign(CONTROL_VARIABLE, &path)];
        arguments.push(program.into());
        arguments.append(&mut spec.arguments);
        spec.arguments = arguments;
        Ok(control)
    }
}

impl Control {
    fn create(path: &Path) -> Result<Self, PreloadError> {
        let failed = |cause| PreloadError::File { path: path.to_owned(), cause };
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        file.set_len(FIELDS_COUNT * FIELD_BYTES).map_err(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Lets the disk have room for this many more bytes, or for any number of them again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_bytes_left(&self, bytes_left: Option<u64>) -> Result<(), PreloadError> {
        let bytes = bytes_left.unwrap_or_default();
        self.set(Field::BytesLeft, i64::try_from(bytes).unwrap_or(i64::MAX))?;
        self.set(Field::DiskFull, i64::from(bytes_left.is_some()))
    }

    /// Makes syncs fail, or succeed again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_sync_fails(&self, fails: bool) -> Result<(), PreloadError> {
        self.set(Field::SyncFails, i64::from(fails))
    }

    /// Sets how far the process's time of day is off.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_clock_offset_ms(&self, offset_ms: i64) -> Result<(), PreloadError> {
        self.set(Field::ClockOffsetMs, offset_ms)
    }

    /// What the library has done so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn effects(&self) -> Result<Effects, PreloadError> {
        Ok(Effects {
            writes_refused: self.count(Field::WritesRefused)?,
            syncs_refused: self.count(Field::SyncsRefused)?,
            clock_reads_shifted: self.count(Field::ClockReadsShifted)?,
        })
    }

    fn set(&self, field: Field, value: i64) -> Result<(), PreloadError> {
        // The library has the same page of memory mapped, so it sees this at once.
        self.file
            .write_all_at(&value.to_ne_bytes(), field as u64 * FIELD_BYTES)
            .map_err(|cause| PreloadError::File { path: self.path.clone(), cause })
    }

    fn count(&self, field: Field) -> Result<u64, PreloadError> {
        let mut bytes = [0; 8];
        self.file
            .read_exact_at(&mut bytes, field as u64 * FIELD_BYTES)
            .map_err(|cause| PreloadError::File { path: self.path.clone(), cause })?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell with the library, and gives whether it ended well and what it said.
    fn run(folder: &Path, script: &str, change: impl FnOnce(&Control)) -> (bool, String, Effects) {
        let preload = Preload::build(folder).unwrap().expect("the project needs a C compiler");
        let mut spec = ProcessSpec {
            name: "test".to_owned(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into(), "sh".into(), folder.into()],
            stage: 0,
            socket: None,
        };
        let control = preload.load_into(&mut spec).unwrap();
        change(&control);
        let output = Command::new(&spec.program).args(&spec.arguments).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), said, control.effects().unwrap())
    }

    #[test]
    fn a_disk_that_is_full_takes_the_part_that_fits_and_pipes_take_all() {
        let folder = tempfile::tempdir().unwrap();
        let script = "printf 123456789 | dd of=\"$1/file\" status=none; echo code $?";
        let (_, said, effects) =
            run(folder.path(), script, |control| control.set_bytes_left(Some(4)).unwrap());
        assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), b"1234");
        assert!(said.contains("No space left") && said.contains("code 1\n"), "{said}");
        assert!(effects.writes_refused >= 1, "{effects:?}");

        let (_, said, effects) =
            run(folder.path(), script, |control| control.set_bytes_left(None).unwrap());
        assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), b"123456789");
        assert_eq!((said.as_str(), effects.writes_refused), ("code 0\n", 0));
    }

    #[test]
    fn syncs_fail_only_while_they_are_to() {
        let folder = tempfile::tempdir().unwrap();
        for fails in [true, false] {
            let (ended_well, said, effects) =
                run(folder.path(), "exec sync \"$1/preload.c\"", |control| {
                    control.set_sync_fails(fails).unwrap();
                });
            assert_eq!(ended_well, !fails, "{said}");
            assert_eq!(effects.syncs_refused, u64::from(fails));
        }
    }

    #[test]
    fn the_time_of_day_is_off_in_either_direction() {
        let folder = tempfile::tempdir().unwrap();
        for offset_ms in [-7_200_500, 0, 7_200_500] {
            let (_, said, _) = run(folder.path(), "exec date +%s%3N", |control| {
                control.set_clock_offset_ms(offset_ms).unwrap();
            });
            let told: i64 = said.trim().parse().unwrap();
            let off = told - ledger::clock::now().get() - offset_ms;
            assert!((-60_000..=0).contains(&off), "{offset_ms}: {off}");
        }
    }
}
