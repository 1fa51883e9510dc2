//! What can be made to go wrong around processes that know nothing of it: on the way to the
//! processors ([`proxy`]), on the disk and with the clock ([`preload`]), and in their files
//! ([`files`]).

pub mod files;
pub mod message;
pub mod preload;
pub mod proxy;
pub mod random;
