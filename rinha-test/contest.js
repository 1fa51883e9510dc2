// The contest's test: users grow from 1 to 550 in a minute and post payments, the processors become
// slow and fail at fixed moments, an audit compares all books every 10 s, and the end is scored.
// Run it with `scripts/stress.sh contest`.
//
// Settings come from the environment; those that are not given are the contest's:
//   ROUTER_URL, DEFAULT_URL, FALLBACK_URL   where everyone listens
//   TOKEN          the processors' admin token during the test
//   ADMIN_TOKEN    the token that they have before, should they refuse TOKEN
//   DEFAULT_FEE, FALLBACK_FEE               what they keep, as fractions
//   AMOUNT         the amount of every payment
//   MAX_VUS        users at the end
//   TIME_SCALE     stretches the minute and all moments in it: 0.2 makes a test of 12 s
//   AUDIT_END_MS   how old the end of an audit's window is
//   RESULT         the file for the figures

import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Gauge } from 'k6/metrics';

import {
  AUDIT_FIGURES,
  BOOKS_FIGURES,
  FINAL_FIGURES,
  LATENCY,
  SIDES,
  areEqual,
  resultOf,
  table,
} from './contest-report.js';
import { inconsistency, parseCents, parseFee } from './scoring.js';

const ROUTER_URL = __ENV.ROUTER_URL || 'http://127.0.0.1:9999';
const PROCESSOR_URLS = [
  __ENV.DEFAULT_URL || 'http://127.0.0.1:8001',
  __ENV.FALLBACK_URL || 'http://127.0.0.1:8002',
];
const TOKEN = __ENV.TOKEN || '123';
const ADMIN_TOKEN = __ENV.ADMIN_TOKEN || '123';
const FEES = [parseFee(__ENV.DEFAULT_FEE || '0.05'), parseFee(__ENV.FALLBACK_FEE || '0.15')];
const AMOUNT = Number(__ENV.AMOUNT || '19.90');
const MAX_VUS = Number(__ENV.MAX_VUS || '550');
const TIME_SCALE = Number(__ENV.TIME_SCALE || '1');
const AUDIT_END_MS = Number(__ENV.AUDIT_END_MS || '1500');
export const RESULT = __ENV.RESULT || 'contest-result.json';

const TREND_STATS = ['p(50)', 'p(99)', 'max', 'count'];

const RUN_SECONDS = 60;
const AUDIT_SECONDS = 10;
const AUDITS = RUN_SECONDS / AUDIT_SECONDS;
// A run that is stretched needs longer windows; in a shorter one they still have their meaning.
const STRETCH = Math.max(1, TIME_SCALE);
const AUDIT_WINDOW_MS = 15000 * STRETCH;
const FINAL_WINDOW_MS = 70000 * STRETCH;
// How long the books may take to agree after the end. It changes no figure of the score.
const BOOKS_PATIENCE_MS = 10000;
const TIMEOUT = '1500ms';
const PURGE_TIMEOUT = '10s';

// At this second: delay and failure of default, then of fallback.
const STAGES = [
  [1, [0, false], [0, false]],
  [10, [100, false], [0, false]],
  [20, [100, true], [0, false]],
  [30, [2000, true], [1000, true]],
  [40, [20, false], [20, false]],
  [50, [0, false], [5000, false]],
];

const requested = new Counter('payments_requested');
const accepted = new Counter('payments_accepted');
const failed = new Counter('requests_failed');
const auditsDone = new Counter('audits_done');
const inconsistencies = new Counter('inconsistencies');
const inconsistenciesRehearsal = new Counter('inconsistencies_rehearsal');
// Each accepted payment adds one, and what is settled at the end is taken off.
const lag = new Counter('lag');
// Each posted payment takes one off, and what is settled at the end is added.
const excess = new Counter('reported_beyond_posted');
const faults = new Counter('test_faults');
const booksUnequal = new Counter('books_unequal');

const gauges = (prefix, names) =>
  Object.fromEntries(names.map((name) => [name, new Gauge(`${prefix}_${name}`)]));

const auditGauges = gauges('audit', AUDIT_FIGURES);
const finalGauges = gauges('final', FINAL_FIGURES);
const booksGauges = gauges('books', BOOKS_FIGURES);

function scaled(seconds) {
  return `${Math.round(seconds * TIME_SCALE * 1000)}ms`;
}

function once(exec, seconds, env) {
  return {
    executor: 'per-vu-iterations',
    exec,
    vus: 1,
    iterations: 1,
    startTime: scaled(seconds),
    maxDuration: '15s',
    env,
  };
}

// Who posts the payments.
function users() {
  return {
    executor: 'ramping-vus',
    exec: 'payments',
    startVUs: 1,
    stages: [{ duration: scaled(RUN_SECONDS), target: MAX_VUS }],
    gracefulRampDown: '0s',
    gracefulStop: '5s',
  };
}

function scenarios() {
  const all = { payments: users() };
  STAGES.forEach(([second], stage) => {
    all[`stage_${second}s`] = once('changeProcessors', second, { STAGE: `${stage}` });
  });
  for (let audit = 1; audit <= AUDITS; audit += 1) {
    all[`audit_${audit}`] = once('audit', audit * AUDIT_SECONDS, { AUDIT: `${audit}` });
  }
  return all;
}

function thresholds() {
  const all = {
    [LATENCY]: ['p(99)>=0'],
    payments_requested: ['count>0'],
    requests_failed: ['count==0'],
    audits_done: [`count==${AUDITS}`],
    inconsistencies: ['count==0'],
    lag: ['count==0'],
    reported_beyond_posted: ['count<=0'],
    books_unequal: ['count==0'],
    test_faults: ['count==0'],
  };
  // A threshold is what makes the figures of a single audit known to the summary.
  for (let audit = 1; audit <= AUDITS; audit += 1) {
    for (const name of AUDIT_FIGURES) {
      all[`audit_${name}{audit:${audit}}`] = ['value>=0'];
    }
  }
  return all;
}

export const options = {
  scenarios: scenarios(),
  thresholds: thresholds(),
  summaryTrendStats: TREND_STATS,
  setupTimeout: '30s',
  teardownTimeout: '60s',
};

export function setup() {
  // First of all, so that a system that refuses keeps its processors' books as well.
  purgeRouter();
  for (const url of PROCESSOR_URLS) {
    admitTest(url);
    configure(url, [0, false]);
    const purge = http.post(`${url}/admin/purge-payments`, null, asAdmin());
    if (purge.status !== 200) {
      throw new Error(`${url} does not purge its payments: ${purge.status} ${purge.error}`);
    }
  }
  return { startedAt: Date.now() };
}

// Empties the router, without which its books could not agree with the emptied processors'.
function purgeRouter() {
  const params = { timeout: PURGE_TIMEOUT, tags: { name: 'purge' } };
  const answer = http.post(`${ROUTER_URL}/purge-payments`, null, params);
  if (answer.status === 403) {
    throw new Error(
      `the router at ${ROUTER_URL} refuses to be emptied, which the contest needs: start it with ` +
        'scripts/up.sh --allow-purge, or end it and scripts/stress.sh starts one of its own',
    );
  }
  if (answer.status !== 200) {
    throw new Error(`${ROUTER_URL} is not emptied: ${answer.status} ${answer.error}`);
  }
}

// Makes sure that a processor knows the test's token.
function admitTest(url) {
  const probe = http.get(`${url}/admin/payments-summary`, asAdmin());
  if (probe.status === 401) {
    const body = JSON.stringify({ token: TOKEN });
    http.put(`${url}/admin/configurations/token`, body, asAdmin(ADMIN_TOKEN));
  } else if (probe.status === 200) {
    return;
  }
  const again = http.get(`${url}/admin/payments-summary`, asAdmin());
  if (again.status !== 200) {
    throw new Error(`${url} is no processor that can be administered: ${again.status} ${again.error}`);
  }
}

export function payments() {
  const body = JSON.stringify({ correlationId: crypto.randomUUID(), amount: AMOUNT });
  const answer = http.post(`${ROUTER_URL}/payments`, body, {
    headers: { 'Content-Type': 'application/json' },
    timeout: TIMEOUT,
    responseType: 'none',
    tags: { name: 'payments' },
  });
  requested.add(1);
  excess.add(-1);
  if (answer.status >= 200 && answer.status < 300) {
    accepted.add(1);
    lag.add(1);
  } else {
    failed.add(1);
  }
  sleep(1);
}

export function changeProcessors() {
  const [, ...settings] = STAGES[Number(__ENV.STAGE)];
  settings.forEach((setting, side) => configure(PROCESSOR_URLS[side], setting));
}

function configure(url, [delay, failure]) {
  const put = (what, value) => [
    'PUT',
    `${url}/admin/configurations/${what}`,
    JSON.stringify({ [what]: value }),
    asAdmin(),
  ];
  for (const answer of http.batch([put('delay', delay), put('failure', failure)])) {
    if (answer.status !== 200) {
      faults.add(1);
      console.error(`${answer.url}: ${answer.status} ${answer.error}`);
    }
  }
}

export function audit() {
  const tags = { audit: __ENV.AUDIT };
  const now = Date.now();
  const [from, to] = [now - AUDIT_WINDOW_MS, now - AUDIT_END_MS];
  const figures = readAll(from, to);
  const requests = (owner) => SIDES.map((side) => figures[`${owner}_${side}_requests`]);
  const found = inconsistency(requests('ours'), requests('processors'));
  inconsistencies.add(found.strict);
  inconsistenciesRehearsal.add(found.rehearsal);
  set(auditGauges, { from_ms: from, to_ms: to, ...figures }, tags);
  auditsDone.add(1);
}

export function teardown({ startedAt }) {
  // What is still queued now earns nothing, so nothing is waited for.
  const now = Date.now();
  const final = readAll(now - FINAL_WINDOW_MS, now);
  set(finalGauges, final);
  const settled = final.ours_default_requests + final.ours_fallback_requests;
  lag.add(-settled);
  excess.add(settled);

  PROCESSOR_URLS.forEach((url) => configure(url, [0, false]));
  let books = readAll(startedAt, Date.now());
  while (!areEqual(books) && Date.now() < now + BOOKS_PATIENCE_MS) {
    sleep(0.25);
    books = readAll(startedAt, Date.now());
  }
  set(booksGauges, books);
  booksUnequal.add(areEqual(books) ? 0 : 1);
}

// Our summary and both processors', asked for at the same moment. Who does not answer says
// nothing was settled, and is counted as a failure.
function readAll(from, to) {
  const query = `?from=${new Date(from).toISOString()}&to=${new Date(to).toISOString()}`;
  const ask = (url, params) => ['GET', `${url}${query}`, null, params];
  const answers = http.batch([
    ask(`${ROUTER_URL}/payments-summary`, { timeout: TIMEOUT, tags: { name: 'summary' } }),
    ...PROCESSOR_URLS.map((url) => ask(`${url}/admin/payments-summary`, asAdmin())),
  ]);
  const [ours, ...processors] = answers.map(readJson);
  if (ours === null) {
    failed.add(1);
  }
  if (processors.includes(null)) {
    faults.add(1);
  }
  const figures = {};
  SIDES.forEach((side, index) => {
    const totals = { ours: ours && ours[side], processors: processors[index] };
    for (const [owner, total] of Object.entries(totals)) {
      figures[`${owner}_${side}_requests`] = total ? total.totalRequests : 0;
      figures[`${owner}_${side}_cents`] = total ? parseCents(total.totalAmount) : 0;
    }
  });
  return figures;
}

function readJson(answer) {
  if (answer.status !== 200) {
    console.error(`${answer.url}: ${answer.status} ${answer.error}`);
    return null;
  }
  return answer.json();
}

function asAdmin(token = TOKEN) {
  return {
    headers: { 'X-Rinha-Token': token, 'Content-Type': 'application/json' },
    tags: { name: 'admin' },
  };
}

function set(target, figures, tags) {
  for (const [name, value] of Object.entries(figures)) {
    if (target[name]) {
      target[name].add(value, tags);
    }
  }
}

export function handleSummary(data) {
  const result = resultOf(data.metrics, AUDITS, {
    default_fee: FEES[0] / 10000,
    fallback_fee: FEES[1] / 10000,
    amount: AMOUNT,
    max_vus: MAX_VUS,
    time_scale: TIME_SCALE,
    audit_end_ms: AUDIT_END_MS,
  });
  return {
    [RESULT]: `${JSON.stringify(result, null, 2)}\n`,
    stdout: table(result),
  };
}
