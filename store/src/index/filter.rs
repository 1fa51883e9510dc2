//! Which fingerprints a segment may have: a binary fuse filter for each part of their range. Making one takes
//! 22 times the memory that it has, so a segment has several.

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter as _, FilterRef as _};

/// Bytes that describe a filter: its seed and three lengths.
const DESCRIPTOR_BYTES: usize = BinaryFuse8::DESCRIPTOR_LEN;

/// Fingerprints of a part, at most on average. With half as many, the filters would be 2 % larger. Tests have few.
const PART_COUNT: usize = if cfg!(test) { 32 } else { 1 << 17 };

type Descriptor = [u8; DESCRIPTOR_BYTES];

/// The parts of the range of so many fingerprints.
pub(super) fn parts_count(fingerprints_count: usize) -> usize {
    fingerprints_count.div_ceil(PART_COUNT)
}

/// The part that a fingerprint lies in. They are all equally large, and in order.
pub(super) fn part_of(fingerprint: u64, parts_count: usize) -> usize {
    let part = (u128::from(fingerprint) * parts_count as u128) >> 64;
    usize::try_from(part).expect("it is below the number of parts")
}

/// The filters of all parts, in their order.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// What describes each, and where its table begins.
    parts: Vec<(Descriptor, usize)>,
    tables: Vec<u8>,
}

impl Filters {
    /// Adds the filter of the next part, which has these fingerprints, none of them twice.
    ///
    /// # Errors
    /// None is found.
    pub fn push(&mut self, fingerprints: &[u64]) -> Result<(), &'static str> {
        let filter = BinaryFuse8::try_from(fingerprints)?;
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        filter.dma_copy_descriptor_to(&mut descriptor);
        self.parts.push((descriptor, self.tables.len()));
        self.tables.extend_from_slice(filter.dma_fingerprints());
        Ok(())
    }

    /// Whether a segment may have a fingerprint. If not, it has not.
    pub fn contains(&self, fingerprint: u64) -> bool {
        let part = part_of(fingerprint, self.parts.len());
        let Some((descriptor, begin)) = self.parts.get(part) else { return false };
        let end = self.parts.get(part + 1).map_or(self.tables.len(), |(_, begin)| *begin);
        BinaryFuse8Ref::from_dma(descriptor, &self.tables[*begin..end]).contains(&fingerprint)
    }

    /// Its bytes: what describes each filter, then the tables.
    pub fn encode(&self) -> impl Iterator<Item = &[u8]> {
        let descriptors = self.parts.iter().map(|(descriptor, _)| descriptor.as_slice());
        descriptors.chain([self.tables.as_slice()])
    }

    /// What these bytes are, if they are the filters of so many parts. What a filter looks at lies in its
    /// table then: the filter itself does not check that.
    pub fn decode(mut bytes: Vec<u8>, parts_count: usize) -> Option<Self> {
        let descriptors_bytes = parts_count.checked_mul(DESCRIPTOR_BYTES)?;
        let (descriptors, _) = bytes.get(..descriptors_bytes)?.as_chunks::<DESCRIPTOR_BYTES>();
        let mut begin = 0;
        let mut parts = Vec::with_capacity(parts_count);
        for descriptor in descriptors {
            parts.push((*descriptor, begin));
            begin += table_bytes(descriptor)?;
        }
        (descriptors_bytes + begin == bytes.len()).then(|| {
            bytes.drain(..descriptors_bytes);
            bytes.shrink_to_fit();
            Self { parts, tables: bytes }
        })
    }
}

/// How large the table of a filter that is described so is, if it can be: it looks into three segments that
/// follow each other, the first of them below the third length.
fn table_bytes(descriptor: &Descriptor) -> Option<usize> {
    let (words, _) = descriptor.as_chunks::<4>();
    let [_, _, length, mask, count_length] = words else { return None };
    let [length, mask, count_length] =
        [length, mask, count_length].map(|word| u32::from_le_bytes(*word));
    let is_possible = length.is_power_of_two()
        && mask == length - 1
        && count_length > 0
        && count_length.is_multiple_of(length);
    is_possible.then(|| count_length as usize + 2 * length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fingerprints that are evenly spread, in order.
    fn spread(count: usize) -> Vec<u64> {
        let step = u64::MAX / (count as u64 + 1);
        (1..=count as u64).map(|number| number * step).collect()
    }

    fn filters(fingerprints: &[u64]) -> Filters {
        let parts_count = parts_count(fingerprints.len());
        let mut filters = Filters::default();
        let mut parts = fingerprints
            .chunk_by(|one, other| part_of(*one, parts_count) == part_of(*other, parts_count));
        (0..parts_count).for_each(|_| filters.push(parts.next().unwrap()).unwrap());
        assert!(parts.next().is_none());
        filters
    }

    #[test]
    fn every_part_tells_of_its_own() {
        for count in [1, 2, PART_COUNT, PART_COUNT + 1, 3 * PART_COUNT - 1, 40_000] {
            let fingerprints = spread(count);
            let written = filters(&fingerprints);
            let bytes = written.encode().collect::<Vec<_>>().concat();
            let read = Filters::decode(bytes, parts_count(count)).unwrap();
            assert!(fingerprints.iter().all(|f| written.contains(*f) && read.contains(*f)));
            let others = fingerprints.iter().map(|f| f.wrapping_add(12_345));
            let found = others.filter(|f| read.contains(*f)).count();
            assert!(found <= count / 100 + 10, "{found} of {count} others");
        }
    }

    #[test]
    fn nothing_is_in_none() {
        let none = Filters::decode(Vec::new(), parts_count(0)).unwrap();
        assert!(!none.contains(0) && !none.contains(u64::MAX));
    }

    /// Found by fuzzing: the filter looked beyond its table, and the store ended.
    #[test]
    fn filters_that_do_not_fit_their_tables_are_none() {
        let written = filters(&spread(PART_COUNT + 1));
        let whole = written.encode().collect::<Vec<_>>().concat();
        // The seed says how ids are hashed, and any will do; the three lengths must fit.
        for byte in (0..2 * DESCRIPTOR_BYTES).filter(|byte| byte % DESCRIPTOR_BYTES >= 8) {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[byte] ^= 1 << bit;
                assert!(Filters::decode(bytes, 2).is_none(), "byte {byte}, bit {bit}");
            }
        }
        for bytes in [Vec::new(), whole[..19].to_vec(), whole[..whole.len() - 1].to_vec()] {
            assert!(Filters::decode(bytes, 2).is_none());
        }
        assert!(Filters::decode(whole, 1).is_none());
    }
}
