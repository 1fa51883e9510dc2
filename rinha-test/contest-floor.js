// The contest's test against a server that answers constants, as router and as processors: its payments,
// changes and audits, counted and judged as there, so that what k6 sees is its own time and the
// machine's. `rinha-test run contest --client k6` runs it.
//
// Settings come from the environment, as those of contest.js:
//   ROUTER_URL, DEFAULT_URL, FALLBACK_URL   the server, three times
//   AMOUNT, MAX_VUS, TIME_SCALE
//   SHARE    of the contest's time that this takes; so many of its changes and audits are made
//   RESULT   the file for the figures

import { RESULT, audit, changeProcessors, options as whole, payments } from './contest.js';
import { LATENCY } from './contest-report.js';
import { roundHundredths } from './scoring.js';

export { audit, changeProcessors, payments };

const SHARE = Math.min(1, Number(__ENV.SHARE || '1'));

// As few among as few payments as many are among many: they are slower, and count for p99 as well.
function scenarios() {
  const { payments: users, ...others } = whole.scenarios;
  const kept = Object.entries(others).filter(
    (_, index) => Math.floor((index + 1) * SHARE) > Math.floor(index * SHARE)
  );
  return { payments: users, ...Object.fromEntries(kept) };
}

// All that the contest judges, but that no verdict of it ends a floor.
const always = ['count>=0'];
export const options = {
  ...whole,
  scenarios: scenarios(),
  thresholds: {
    ...whole.thresholds,
    requests_failed: always,
    audits_done: always,
    inconsistencies: always,
    lag: always,
    test_faults: always,
  },
};

export function handleSummary(data) {
  const value = (name, of) => (data.metrics[name] ? data.metrics[name].values[of] || 0 : 0);
  const milliseconds = (of) => roundHundredths(value(LATENCY, of)) / 100;
  const result = {
    accepted: value('payments_accepted', 'count'),
    failed: value('requests_failed', 'count'),
    p50_ms: milliseconds('p(50)'),
    p99_ms: milliseconds('p(99)'),
  };
  return { [RESULT]: `${JSON.stringify(result, null, 2)}\n` };
}
