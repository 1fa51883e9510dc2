// Checks scoring.js against fixtures/scoring.json: `k6 run scoring-check.js`. It fails unless
// every figure of every case is as recorded.

import { check } from 'k6';

import { inconsistency, parseCents, parseFee, score } from './scoring.js';

const fixture = JSON.parse(open('./fixtures/scoring.json'));

export const options = {
  vus: 1,
  iterations: 1,
  thresholds: { checks: ['rate==1'], iterations: ['count==1'] },
};

export default function () {
  for (const recorded of fixture.scores) {
    const found = score({
      defaultCents: recorded.default_cents,
      fallbackCents: recorded.fallback_cents,
      defaultFee: recorded.default_fee,
      fallbackFee: recorded.fallback_fee,
      p99Ms: recorded.p99_ms,
      inconsistencies: recorded.inconsistencies,
    });
    equal(`${recorded.what}: gross`, found.grossCents, recorded.gross_cents);
    equal(`${recorded.what}: fees`, found.feesCents, recorded.fees_cents);
    equal(`${recorded.what}: net`, found.netCents, recorded.net_cents);
    equal(`${recorded.what}: p99`, found.p99Centims, recorded.p99_centims);
    equal(`${recorded.what}: bonus`, found.bonusPercent, recorded.bonus_percent);
    equal(`${recorded.what}: bonus amount`, found.bonusCents, recorded.bonus_cents);
    equal(`${recorded.what}: fine`, found.fineCents, recorded.fine_cents);
    equal(`${recorded.what}: score`, found.scoreCents, recorded.score_cents);
  }
  for (const { ours, processors, rehearsal, strict } of fixture.inconsistencies) {
    const found = inconsistency(ours, processors);
    equal(`${ours} and ${processors}: rehearsal`, found.rehearsal, rehearsal);
    equal(`${ours} and ${processors}: strict`, found.strict, strict);
  }
  equal('a fee', parseFee('0.05'), 500);
  equal('a fine fee', parseFee('0.0745'), 745);
  equal('a total', parseCents(333364.8), 33336480);
}

function equal(what, found, expected) {
  if (!check(found, { [what]: (value) => value === expected })) {
    console.error(`${what}: ${found} instead of ${expected}`);
  }
}
