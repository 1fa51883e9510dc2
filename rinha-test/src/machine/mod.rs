//! The machine under the system: the box of 1.5 CPUs and 350 MB that it runs in, and what its
//! processes cost.

pub mod cgroup;
pub mod containers;
pub mod gauge;
pub mod process;
