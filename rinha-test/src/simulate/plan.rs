//! What a seed holds: settings, posts, faults. Drawn before anything happens.

use ledger::{Cents, CorrelationId};

use super::note::Process;
use super::processor::Mood;
use crate::faults::random::Random;

/// Instances of the API.
pub const INSTANCES: usize = 2;

/// A payment that a client posts.
#[derive(Clone, Copy, Debug)]
pub struct Post {
    pub id: CorrelationId,
    pub amount: Cents,
    pub instance: usize,
    pub at_ms: u64,
    /// How often it is posted again where it was not accepted.
    pub tries: u8,
}

/// Something that goes wrong at a moment.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A process ends.
    Kill(Process),
    /// It ends after so many steps from now on.
    KillInSteps(Process, u32),
    /// It ends within a write, after so many changes of its disk from now on.
    Tear(Process, usize),
    /// It stands still for so long.
    Freeze(Process, u64),
    /// Everything ends at once, and a part of what was not synced is lost.
    PowerCut,
    /// After so many changes more its disk refuses everything for so long.
    DiskFails(Process, usize, u64),
    /// The time of day of an instance is off by so much.
    ClockStep(usize, i64),
    /// A processor behaves like this for so long.
    Mood(usize, Mood, u64),
}

/// What a seed holds.
pub struct Plan {
    pub segment_bytes: u64,
    pub backlog_max: usize,
    pub recent_max: usize,
    /// How long payments are gathered for a claim.
    pub claim_delay_ms: u64,
    pub patience_ms: u64,
    pub in_flight_max: u32,
    pub call_timeout_ms: u64,
    /// Nothing is answered before it is synced, and the power may fail.
    pub syncs_first: bool,
    pub posts: Vec<Post>,
    pub faults: Vec<(u64, Fault)>,
    pub heals_at_ms: u64,
}

impl Plan {
    /// What follows from these numbers.
    pub fn draw(random: &mut Random) -> Self {
        let heals_at_ms = random.pick(&[200, 1_000, 4_000, 15_000]);
        let syncs_first = random.below(3) == 0;
        let mut plan = Self {
            segment_bytes: random.pick(&[64 + 6 * 48, 64 + 20 * 48, 1 << 20]),
            backlog_max: random.pick(&[2, 6, 100, 100]),
            recent_max: random.pick(&[1, 4, 100]),
            claim_delay_ms: random.pick(&[0, 0, 20, 200]),
            patience_ms: random.pick(&[0, 200, 2_000, 30_000]),
            in_flight_max: random.pick(&[1, 3, 384]),
            call_timeout_ms: random.pick(&[100, 500, 1_500, 10_000]),
            syncs_first,
            posts: Vec::new(),
            faults: Vec::new(),
            heals_at_ms,
        };
        plan.draw_posts(random);
        plan.draw_faults(random);
        plan
    }

    fn draw_posts(&mut self, random: &mut Random) {
        let ids = random.between(1, 10);
        for _ in 0..random.between(1, 18) {
            let number = random.below(ids);
            let mut bytes = [0xab; 16];
            bytes[15] = u8::try_from(number).unwrap_or(0);
            let other = i64::from(random.below(12) == 0);
            let post = Post {
                id: CorrelationId::from_bytes(bytes),
                amount: Cents::new(1990 + 10 * i64::try_from(number).unwrap_or(0) + other),
                instance: usize::from(random.below(2) == 1),
                at_ms: random.below(self.heals_at_ms),
                tries: u8::try_from(random.below(4)).unwrap_or(0),
            };
            self.posts.push(post);
            // The same at the same moment through the other instance.
            if random.below(4) == 0 {
                self.posts.push(Post { instance: 1 - post.instance, ..post });
            }
        }
    }

    fn draw_faults(&mut self, random: &mut Random) {
        let processes = [Process::Api(0), Process::Api(1), Process::Store];
        for _ in 0..random.below(5) {
            let at_ms = random.below(self.heals_at_ms);
            let processor = usize::from(random.below(3) == 0);
            let length_ms = random.pick(&[300, 2_000, 20_000]);
            let mood = Fault::Mood(processor, random.pick(&Mood::BAD), length_ms);
            self.faults.push((at_ms, mood));
        }
        for _ in 0..random.below(8) {
            let at_ms = random.below(self.heals_at_ms);
            let process = random.pick(&processes);
            let length_ms = random.pick(&[20, 300, 2_000, 20_000]);
            let few = usize::try_from(random.below(12)).unwrap_or(0);
            let fault = match random.below(if self.syncs_first { 8 } else { 7 }) {
                0 => Fault::Kill(process),
                1 | 2 => Fault::KillInSteps(process, u32::try_from(few).unwrap_or(0)),
                3 => Fault::Tear(process, few),
                4 => Fault::Freeze(process, length_ms),
                5 => Fault::DiskFails(process, few, length_ms),
                6 => {
                    let skew_ms = i64::try_from(random.below(7_200_000)).unwrap_or(0) - 3_600_000;
                    Fault::ClockStep(usize::from(random.below(2) == 1), skew_ms)
                }
                _ => Fault::PowerCut,
            };
            self.faults.push((at_ms, fault));
        }
    }
}
