// The payments of the contest's test and nothing else, for a server that answers a constant: what k6
// sees then is its own time and the machine's. `rinha-test run contest --client k6` runs it.
//
// Settings come from the environment, as those of contest.js:
//   ROUTER_URL, AMOUNT, MAX_VUS, TIME_SCALE
//   RESULT   the file for the figures

import { RESULT, TREND_STATS, payments, users } from './contest.js';
import { LATENCY } from './contest-report.js';
import { roundHundredths } from './scoring.js';

export { payments };

export const options = {
  scenarios: { payments: users() },
  // A threshold is what makes this figure known to the summary.
  thresholds: { [LATENCY]: ['p(99)>=0'] },
  summaryTrendStats: TREND_STATS,
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
