// The contest's score, and the comparison of two summaries. Pure functions, on whole numbers:
// money in cents, fees in hundredths of a per cent, the bonus in per cent, times in hundredths of
// a millisecond. `src/score.rs` has the same formulas; both are checked against
// `fixtures/scoring.json`.

const FEE_WHOLE = 10000;
const PERCENT_WHOLE = 100;
// The bonus ends at 11 ms, and a millisecond costs 2 % of it.
const BONUS_END_CENTIMS = 1100;
const CENTIMS_PER_BONUS_PERCENT = 50;
const FINE_PERCENT = 35;

export function score({ defaultCents, fallbackCents, defaultFee, fallbackFee, p99Ms, inconsistencies }) {
  const gross = (defaultCents + fallbackCents) * FEE_WHOLE;
  const fees = defaultCents * defaultFee + fallbackCents * fallbackFee;
  const net = gross - fees;
  const p99Centims = roundHundredths(p99Ms);
  const left = Math.max(0, BONUS_END_CENTIMS - p99Centims);
  const bonusPercent = rounded(left, CENTIMS_PER_BONUS_PERCENT);
  const finePercent = inconsistencies > 0 ? FINE_PERCENT : 0;
  const percentUnit = FEE_WHOLE * PERCENT_WHOLE;
  return {
    grossCents: rounded(gross, FEE_WHOLE),
    feesCents: rounded(fees, FEE_WHOLE),
    netCents: rounded(net, FEE_WHOLE),
    p99Centims,
    bonusPercent,
    bonusCents: rounded(net * bonusPercent, percentUnit),
    fineCents: rounded(net * finePercent, percentUnit),
    scoreCents: rounded(net * (PERCENT_WHOLE + bonusPercent - finePercent), percentUnit),
  };
}

// Milliseconds in hundredths, half up. Times are measured in nanoseconds, so 1e-9 of a hundredth of
// a millisecond only mends what the binary fraction lacks to a half.
export function roundHundredths(ms) {
  return Math.floor(ms * 100 + 0.5 + 1e-9);
}

// What two summaries of one window differ by, in requests; each is [default, fallback].
// `rehearsal` does not see a payment that is booked at the wrong processor; `strict` decides.
export function inconsistency(ours, processors) {
  const [byDefault, byFallback] = [ours[0] - processors[0], ours[1] - processors[1]];
  return {
    rehearsal: Math.abs(byDefault + byFallback),
    strict: Math.abs(byDefault) + Math.abs(byFallback),
  };
}

// A fee such as "0.05", in hundredths of a per cent.
export function parseFee(text) {
  if (!/^0(\.\d{1,4})?$/.test(text)) {
    throw new Error(`a fee must be a fraction with at most four places, such as 0.05, not ${text}`);
  }
  return Math.round(Number(text) * FEE_WHOLE);
}

// A total in money, as JSON has it, in cents.
export function parseCents(amount) {
  return Math.round(amount * 100);
}

// Parts in wholes, half up. The remainder is exact where a quotient need not be.
function rounded(parts, partsPerWhole) {
  if (!Number.isSafeInteger(2 * parts)) {
    throw new Error(`${parts} is more than can be computed exactly`);
  }
  const doubled = 2 * parts + partsPerWhole;
  return (doubled - (doubled % (2 * partsPerWhole))) / (2 * partsPerWhole);
}
