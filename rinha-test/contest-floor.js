// The contest's test against a server that answers constants, as router and as processors: the same
// requests at the same moments and the same counts, so that what k6 sees is its own time and the
// machine's. `rinha-test run contest --client k6` runs it.
//
// Settings come from the environment, as those of contest.js:
//   ROUTER_URL, DEFAULT_URL, FALLBACK_URL   the server, three times
//   AMOUNT, MAX_VUS, TIME_SCALE
//   RESULT   the file for the figures

import { RESULT, audit, changeProcessors, options as whole, payments } from './contest.js';
import { LATENCY } from './contest-report.js';
import { roundHundredths } from './scoring.js';

export { audit, changeProcessors, payments };

// Everything is judged as in the contest, but that the server settles what it accepts.
export const options = { ...whole, thresholds: { ...whole.thresholds, lag: ['count>=0'] } };

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
