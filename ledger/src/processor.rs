//! The two payment processors.

use std::fmt;

/// A payment processor. Both offer the same API; the default one is the cheaper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Processor {
    /// The cheaper one.
    Default,
    /// The dearer one.
    Fallback,
}

impl Processor {
    /// Both, the cheaper first.
    pub const ALL: [Self; 2] = [Self::Default, Self::Fallback];

    /// 0 for default, 1 for fallback: a place in an array of two.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Default => 0,
            Self::Fallback => 1,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Default => Self::Fallback,
            Self::Fallback => Self::Default,
        }
    }

    /// Its number on disk and on the wire: 1 or 2, so that a zeroed byte names none.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Default => 1,
            Self::Fallback => 2,
        }
    }

    /// The processor with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Default),
            2 => Some(Self::Fallback),
            _ => None,
        }
    }

    /// Its name in answers and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fallback => "fallback",
        }
    }

    /// The processor with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|processor| processor.name() == name)
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_the_processor() {
        for processor in Processor::ALL {
            assert_eq!(Processor::from_code(processor.code()), Some(processor));
            assert_eq!(Processor::ALL[processor.index()], processor);
            assert_eq!(processor.other().other(), processor);
            assert_ne!(processor.other(), processor);
        }
        assert_eq!(Processor::from_code(0), None);
        assert_eq!(Processor::from_code(3), None);
    }
}
