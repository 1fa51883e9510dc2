//! Docker containers, as groups that can be measured.

use std::io;
use std::process::Command;

use super::cgroup::Group;

/// Why a container cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum ContainersError {
    /// Docker's client cannot be run.
    #[error("cannot run docker: {0}")]
    Run(#[from] io::Error),
    /// Docker knows no such container, or it does not run.
    #[error("docker does not tell the pid of the container {name}: {answer}")]
    Unknown {
        /// The container.
        name: String,
        /// What docker says.
        answer: String,
    },
    /// Its group cannot be seen from here.
    #[error("the control group of the container {0} cannot be seen from here")]
    Hidden(String),
}

/// What docker is asked: the pid, and the name of the compose service, or else of the container.
const FORMAT: &str =
    r#"{{.State.Pid}} {{or (index .Config.Labels "com.docker.compose.service") .Name}}"#;

/// The group of a running container, by its name or id, and what to call it.
///
/// # Errors
/// There is none, or it cannot be seen from here.
pub fn group(name: &str) -> Result<(String, Group), ContainersError> {
    let output = Command::new("docker")
        .args(["inspect", "--type", "container", "--format", FORMAT, name])
        .output()?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let (pid, full_name) = answer.trim().split_once(' ').unwrap_or_default();
    let pid = pid.parse().unwrap_or(0);
    if pid == 0 {
        let answer = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let answer = if answer.is_empty() { "it does not run".to_owned() } else { answer };
        return Err(ContainersError::Unknown { name: name.to_owned(), answer });
    }
    let hidden = || ContainersError::Hidden(name.to_owned());
    let group = Group::of_process(pid).ok_or_else(hidden)?;
    group.usage().map_err(|_| hidden())?;
    Ok((full_name.trim_start_matches('/').to_owned(), group))
}
