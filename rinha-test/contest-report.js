// What comes out of the contest's test: the names of its figures, the result, and a table of it.

import { inconsistency, parseFee, roundHundredths, score } from './scoring.js';

export const SIDES = ['default', 'fallback'];
const figureNames = (owners) =>
  owners.flatMap((owner) =>
    SIDES.flatMap((side) => ['requests', 'cents'].map((what) => `${owner}_${side}_${what}`))
  );

export const AUDIT_FIGURES = ['from_ms', 'to_ms', ...figureNames(['ours', 'processors'])];
export const FINAL_FIGURES = figureNames(['ours']);
export const BOOKS_FIGURES = figureNames(['ours', 'processors']);

// The times of the requests that were answered as they should be.
export const LATENCY = 'http_req_duration{expected_response:true}';

// Whether our figures are the processors', request for request and cent for cent.
export function areEqual(figures) {
  return SIDES.every((side) =>
    ['requests', 'cents'].every(
      (what) => figures[`ours_${side}_${what}`] === figures[`processors_${side}_${what}`]
    )
  );
}

// The figures of a test: from k6's metrics, the number of its audits, and its settings.
export function resultOf(metrics, audits, settings) {
  const value = (name, of) => (metrics[name] ? metrics[name].values[of] || 0 : 0);
  const count = (name) => value(name, 'count');
  const gauge = (name) => value(name, 'value');
  const read = (prefix, names, suffix = '') =>
    Object.fromEntries(names.map((name) => [name, gauge(`${prefix}_${name}${suffix}`)]));

  const final = read('final', FINAL_FIGURES);
  const books = read('books', BOOKS_FIGURES);
  const scored = score({
    defaultCents: final.ours_default_cents,
    fallbackCents: final.ours_fallback_cents,
    defaultFee: parseFee(`${settings.default_fee}`),
    fallbackFee: parseFee(`${settings.fallback_fee}`),
    p99Ms: value(LATENCY, 'p(99)'),
    inconsistencies: count('inconsistencies'),
  });
  const settled = final.ours_default_requests + final.ours_fallback_requests;
  // A figure that was never set is known by its absence, and so is an end that was never reached.
  const finished = metrics[`books_${BOOKS_FIGURES[0]}`] !== undefined;
  return {
    finished,
    score: scored.scoreCents / 100,
    net: scored.netCents / 100,
    gross: scored.grossCents / 100,
    fees: scored.feesCents / 100,
    bonus: scored.bonusPercent / 100,
    bonus_amount: scored.bonusCents / 100,
    fine: scored.fineCents / 100,
    p99_ms: scored.p99Centims / 100,
    p50_ms: roundHundredths(value(LATENCY, 'p(50)')) / 100,
    inconsistencies: count('inconsistencies'),
    inconsistencies_rehearsal: count('inconsistencies_rehearsal'),
    lag: count('lag'),
    requested: count('payments_requested'),
    accepted: count('payments_accepted'),
    failed: count('requests_failed'),
    default_requests: final.ours_default_requests,
    fallback_requests: final.ours_fallback_requests,
    default_share: settled > 0 ? final.ours_default_requests / settled : 0,
    total_default_amount: final.ours_default_cents / 100,
    total_fallback_amount: final.ours_fallback_cents / 100,
    disqualified: settled > count('payments_requested'),
    books_equal: finished && areEqual(books),
    books,
    test_faults: count('test_faults'),
    audits: auditsOf(read, audits),
    settings,
  };
}

function auditsOf(read, count) {
  const audits = [];
  for (let audit = 1; audit <= count; audit += 1) {
    const { from_ms: from, to_ms: to, ...figures } = read('audit', AUDIT_FIGURES, `{audit:${audit}}`);
    if (to > 0) {
      const requests = (owner) => SIDES.map((side) => figures[`${owner}_${side}_requests`]);
      audits.push({
        audit,
        from: new Date(from).toISOString(),
        to: new Date(to).toISOString(),
        inconsistencies: inconsistency(requests('ours'), requests('processors')).strict,
        ...figures,
      });
    }
  }
  return audits;
}

// The figures for people.
export function table(result) {
  const money = (amount) => amount.toFixed(2);
  const percent = (share) => `${(share * 100).toFixed(share < 1 ? 1 : 0)} %`;
  const row = (name, text, note = '') => `${name.padEnd(18)}${`${text}`.padStart(14)}  ${note}`.trimEnd();
  const { settings } = result;
  const lines = [
    '',
    row('gross', money(result.gross), `${result.default_requests} through default, ${result.fallback_requests} through fallback: ${percent(result.default_share)} default`),
    row('fees', money(-result.fees), `${percent(settings.default_fee)} and ${percent(settings.fallback_fee)}`),
    row('net', money(result.net)),
    row('bonus', money(result.bonus_amount), `${percent(result.bonus)} for p99 ${result.p99_ms.toFixed(2)} ms (p50 ${result.p50_ms.toFixed(2)} ms)`),
    row('fine', money(-result.fine), `${result.inconsistencies} inconsistent, ${result.inconsistencies_rehearsal} as the rehearsal counts`),
    row('score', money(result.score), result.disqualified ? 'DISQUALIFIED: more was reported than posted' : ''),
    '',
    row('requested', result.requested),
    row('failed', result.failed),
    row('lag', result.lag, 'accepted, and not in the final summary'),
    row('books equal', result.books_equal ? 'yes' : 'NO'),
    '',
    ...result.audits.map(auditRow),
    '',
  ];
  if (!result.finished) {
    lines.push('the test did not reach its end: this is no score', '');
  }
  if (settings.time_scale !== 1) {
    lines.push(`time was scaled by ${settings.time_scale}: this is no score of the contest`, '');
  }
  return lines.join('\n');
}

function auditRow(audit) {
  const figure = (side) => `${side} ${audit[`ours_${side}_requests`]} / ${audit[`processors_${side}_requests`]}`;
  const window = `${audit.from.slice(11, 23)} to ${audit.to.slice(11, 23)}`;
  return `audit ${audit.audit}  ${window}  ours / processor's: ${SIDES.map(figure).join(', ')}  inconsistent: ${audit.inconsistencies}`;
}
