'use strict';

// Draws the report from the data that comes with the page.
function showReport(data) {
  const byId = (id) => document.getElementById(id);
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const MIB = 1048576;

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // A number for people: as many places as tell something.
  function shown(value, unit) {
    if (value === null || value === undefined) return 'unknown';
    if (typeof value === 'boolean') return value ? 'yes' : 'no';
    if (unit === 'money') return value.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 });
    if (unit === 'bytes') return `${(value / MIB).toFixed(1)} MiB`;
    if (unit === 'share') return `${(value * 100).toFixed(value > 0 && value < 1 ? 2 : 0)} %`;
    const places = Number.isInteger(value) || Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 100 ? 1 : Math.abs(value) >= 1 ? 2 : 3;
    const text = value.toLocaleString('en', { minimumFractionDigits: places, maximumFractionDigits: places });
    return unit ? `${text} ${unit}` : text;
  }

  const TILES = [
    ['score', 'Score', 'money'], ['net', 'Net', 'money'], ['accepted', 'Accepted'], ['failed', 'Failed'],
    ['throughput_per_s', 'Throughput', '/s'], ['p50_ms', 'p50', 'ms'], ['p99_ms', 'p99', 'ms'],
    ['p99_over_floor', 'p99 to the floor’s', '×'], ['settle_s', 'Settled after', 's'],
    ['default_share', 'Through default', 'share'], ['cpu_us_per_payment', 'CPU per payment', 'µs'],
    ['memory_peak_bytes', 'Memory, at most', 'bytes'], ['inconsistencies', 'Inconsistencies'], ['lag', 'Lag'],
    ['lost', 'Lost'], ['duplicated', 'Paid twice'],
  ];

  const GOOD_IS_ZERO = new Set(['failed', 'inconsistencies', 'lag', 'lost', 'duplicated']);

  function showTiles(figures) {
    byId('tiles').replaceChildren(...TILES.filter(([key]) => figures[key] !== null && figures[key] !== undefined).map(([key, name, unit]) => {
      const tile = element('div');
      const value = element('dd', shown(figures[key], unit));
      if (GOOD_IS_ZERO.has(key) && figures[key] > 0) value.className = 'bad';
      tile.append(element('dt', name), value);
      return tile;
    }));
  }

  function fill(table, head, rows) {
    const line = (cells, first) => {
      const row = element('tr');
      cells.forEach((cell, place) => {
        const made = element(place === 0 || first ? 'th' : 'td', cell);
        if (first) made.scope = 'col'; else if (place === 0) made.scope = 'row';
        row.append(made);
      });
      return row;
    };
    const top = element('thead');
    top.append(line(head, true));
    const body = element('tbody');
    body.append(...rows.map((row) => line(row, false)));
    table.replaceChildren(top, body);
  }

  function showFigures(subject) {
    const rows = Object.keys(subject.figures).sort().map((key) => {
      const spread = subject.spread[key];
      const differs = spread && spread[0] !== spread[1];
      return [key, shown(subject.figures[key]), differs ? `${shown(spread[0])} to ${shown(spread[1])}` : ''];
    });
    fill(byId('figures'), ['figure', 'value', 'over the rounds'], rows);
  }

  function showCompared() {
    if (data.subjects.length < 2) return;
    byId('compared').hidden = false;
    const rows = TILES.map(([key, name, unit]) => [name, ...data.subjects.map((s) => shown(s.figures[key], unit))]);
    fill(byId('compared').querySelector('table'), ['medians', ...data.subjects.map((s) => s.subject)], rows);
  }

  function showAudits(round) {
    byId('audits').hidden = round.audits.length === 0;
    const pair = (audit, side) => `${audit.ours[side]} / ${audit.processors[side]}`;
    fill(byId('audits').querySelector('table'),
      ['at', 'window from', 'to', 'default: ours / its own', 'fallback: ours / its own', 'amounts equal', 'inconsistent'],
      round.audits.map((a) => [`${a.at_s.toFixed(1)} s`, a.from.slice(11, 23), a.to.slice(11, 23), pair(a, 0), pair(a, 1), shown(a.cents_equal), `${a.inconsistencies}`]));
  }

  function showProcesses(round) {
    byId('groups').hidden = round.groups.length < 2;
    fill(byId('groups').querySelector('table'), ['container', 'own memory, at most', 'with page cache, at most', 'CPU', 'throttled periods'],
      round.groups.map((g) => [g.name, shown(g.anonymous_bytes, 'bytes'), shown(g.memory_bytes, 'bytes'), `${g.cpu_s.toFixed(2)} s`, `${g.throttled_periods}`]));
    byId('processes').hidden = round.processes.length === 0;
    fill(byId('processes').querySelector('table'), ['process', 'own memory, at most', 'mapped files, at most', 'CPU'],
      round.processes.map((p) => [p.name, shown(p.anonymous_bytes, 'bytes'), shown(p.file_bytes, 'bytes'), `${p.cpu_s.toFixed(2)} s`]));
  }

  // What a processor does, if it is anything but well.
  function trouble(name, state) {
    if (!state.failing && state.delay_ms === 0) return null;
    const delay = state.delay_ms > 0 ? ` ${state.delay_ms} ms` : '';
    return `${name}${delay}${state.failing ? ' fails' : ''}`;
  }

  const wordsOf = (stage) => [trouble('default', stage.default), trouble('fallback', stage.fallback)].filter(Boolean);

  // Shades the times at which a processor is slow or fails, with the number of the stage.
  function shades(round) {
    const end = round.samples.length ? round.samples[round.samples.length - 1].at_s : 0;
    return (chart) => {
      const { ctx, bbox } = chart;
      const scale = window.devicePixelRatio || 1;
      ctx.save();
      ctx.font = `${10 * scale}px system-ui, sans-serif`;
      ctx.textAlign = 'center';
      round.stages.forEach((stage, place) => {
        if (wordsOf(stage).length === 0) return;
        const next = round.stages[place + 1];
        const left = Math.max(bbox.left, chart.valToPos(stage.at_s, 'x', true));
        const right = Math.min(bbox.left + bbox.width, chart.valToPos(next ? next.at_s : end, 'x', true));
        if (right - left < scale) return;
        const fails = stage.default.failing || stage.fallback.failing;
        ctx.fillStyle = style(fails ? '--shade-fails' : '--shade');
        ctx.fillRect(left + scale / 2, bbox.top, right - left - scale, bbox.height);
        ctx.fillStyle = style('--faint');
        ctx.fillText(`${place + 1}`, (left + right) / 2, bbox.top + 11 * scale);
      });
      ctx.restore();
    };
  }

  function showStages(round) {
    byId('stages').replaceChildren(...round.stages.map((stage, place) => {
      const words = wordsOf(stage);
      return element('li', `${place + 1}, from ${stage.at_s.toFixed(0)} s: ${words.length ? words.join(', ') : 'both up'}`);
    }));
    byId('stages').hidden = round.stages.length === 0;
  }

  const column = (round, key, factor = 1) => round.samples.map((s) => (s[key] === null || s[key] === undefined ? null : s[key] * factor));
  const has = (values) => values.some((value) => value !== null);

  // The plots of a round: title, hint, unit, and the series that there is something of.
  function plotsOf(round) {
    const times = column(round, 'at_s');
    const over = (title, hint, unit, series, log) => ({
      title, hint, unit, log, x: times, shaded: true,
      series: series.filter(([, values]) => has(values)),
    });
    return [
      over('Latency', 'accepted requests, in each interval', 'ms', [['longest', column(round, 'max_ms'), 2], ['p99', column(round, 'p99_ms'), 1], ['p50', column(round, 'p50_ms'), 0]], true),
      distribution(round),
      over('Throughput', 'requests per second', '/s', [['accepted', column(round, 'accepted_per_s')], ['failed', column(round, 'failed_per_s')]]),
      over('Backlog', 'accepted, and not recorded by a processor yet', '', [['payments', column(round, 'backlog')]]),
      over('Settled', 'payments recorded so far', '', [['default', column(round, 'default_requests')], ['fallback', column(round, 'fallback_requests')]]),
      over('Money', 'recorded so far, less fees', '', [['net', column(round, 'net')]]),
      over('CPU', 'CPUs in use', '', [['CPUs', column(round, 'cpus')]]),
      over('Memory', 'of all processes together', 'MiB', [['own', column(round, 'anonymous_bytes', 1 / MIB)], ['page cache', column(round, 'cache_bytes', 1 / MIB)]]),
      over('Throttled', 'periods of 100 ms in which the CPU quota was used up, so far', '', [['periods', round.figures.throttled_periods > 0 ? column(round, 'throttled_periods') : [null]]]),
      over('Disk', 'data folder', 'MiB', [['bytes', fillGaps(column(round, 'disk_bytes', 1 / MIB))]]),
    ].filter((plot) => plot.series.length > 0 && plot.x.length > 1);
  }

  // The disk is looked at now and then; between two looks the last one holds.
  function fillGaps(values) {
    let last = null;
    return values.map((value) => (last = value === null ? last : value));
  }

  // Each further nine takes the same room.
  const nines = (percent) => -Math.log10(1 - Math.min(percent, 99.999) / 100);

  function distribution(round) {
    const points = round.latency.length ? round.latency : round.floor_latency;
    const of = (list) => (list.length ? points.map((point) => (list.find((p) => p.percent === point.percent) || { ms: null }).ms) : [null]);
    return {
      title: 'Latency distribution', hint: 'so many of the requests took at most so long', unit: 'ms', log: true,
      x: points.map((point) => nines(point.percent)), nines: true,
      series: [['system', of(round.latency)], ['floor', of(round.floor_latency)]].filter(([, values]) => has(values)),
    };
  }

  const COLOURS = ['--one', '--two', '--three'];
  let charts = [];

  function draw(plot, round, place) {
    const unit = plot.unit ? ` ${plot.unit}` : '';
    const axis = { stroke: style('--faint'), grid: { stroke: style('--line'), width: 1 }, ticks: { stroke: style('--line'), width: 1 }, font: '11px system-ui, sans-serif' };
    const number = (value) => (value === null || value === undefined ? '–' : shown(value));
    const largest = Math.max(0, ...plot.series.flatMap(([, values]) => values.filter((v) => v !== null)));
    const options = {
      width: Math.max(200, place.clientWidth),
      height: 200,
      padding: [8, 12, 0, 0],
      cursor: { y: false },
      scales: { x: { time: false }, y: plot.log ? { distr: 3 } : { range: (chart, least, most) => [Math.min(0, least || 0), (most || 1) * 1.08] } },
      axes: [
        { ...axis, size: 34, values: plot.nines ? undefined : (chart, ticks) => ticks.map((t) => `${t} s`) },
        { ...axis, size: 62, values: (chart, ticks) => ticks.map((t) => (t === null ? '' : largest >= 1e6 ? `${t / 1e6} M` : largest >= 1e4 ? `${t / 1e3} k` : `${+t.toFixed(3)}`)) },
      ],
      series: [
        { label: plot.nines ? 'share' : 'at', value: (chart, value) => (value === null ? '–' : plot.nines ? `${+(100 - 100 / 10 ** value).toFixed(3)} %` : `${value.toFixed(1)} s`) },
        ...plot.series.map(([label, , colour], index) => ({
          label, stroke: style(COLOURS[colour === undefined ? index : colour]), width: 1.5, spanGaps: true, points: { show: false },
          value: (chart, value) => (value === null ? '–' : `${number(value)}${unit}`),
        })),
      ],
      hooks: { drawClear: plot.shaded ? [shades(round)] : [] },
    };
    if (plot.nines) {
      const marks = [50, 90, 99, 99.9, 99.99];
      options.axes[0].splits = () => marks.map(nines);
      options.axes[0].values = () => marks.map((mark) => `${mark} %`);
    }
    return new uPlot(options, [plot.x, ...plot.series.map(([, values]) => values)], place);
  }

  function showPlots(round) {
    charts.forEach((chart) => chart.destroy());
    const plots = plotsOf(round);
    const figures = plots.map((plot) => {
      const figure = element('figure');
      const place = element('div', undefined, 'plot');
      place.setAttribute('role', 'img');
      place.setAttribute('aria-label', `${plot.title}: ${plot.hint}`);
      figure.append(element('h3', plot.title), element('p', plot.hint, 'hint'), place);
      return figure;
    });
    byId('plots').replaceChildren(...figures);
    charts = plots.map((plot, index) => draw(plot, round, figures[index].querySelector('.plot')));
    document.documentElement.dataset.plots = plots.map((plot) => plot.title).join(', ');
  }

  let current = [0, 0];

  function show() {
    const subject = data.subjects[current[0]];
    const round = subject.rounds[current[1]];
    byId('about').textContent = [subject.subject, data.description, `begun ${round.begun}`, `load by ${round.client}`, `limits: ${round.limits}`, `seed ${round.seed}`].join(' · ');
    const right = data.subjects.every((s) => s.figures.right);
    byId('verdict').textContent = right ? 'All is right.' : 'Not all is right.';
    byId('verdict').className = right ? 'good' : 'bad';
    showTiles(subject.figures);
    byId('findings').hidden = round.findings.length === 0;
    byId('findings').querySelector('ul').replaceChildren(...round.findings.map((finding) => element('li', finding)));
    showAudits(round);
    showProcesses(round);
    showFigures(subject);
    showStages(round);
    showPlots(round);
  }

  function offerChoice() {
    const all = data.subjects.flatMap((subject, s) => subject.rounds.map((round, r) => [s, r, `${subject.subject}, round ${r + 1}`]));
    if (all.length < 2) return;
    const select = element('select');
    select.setAttribute('aria-label', 'Which round is drawn');
    select.append(...all.map(([, , name]) => element('option', name)));
    select.addEventListener('change', () => {
      current = all[select.selectedIndex].slice(0, 2);
      show();
    });
    byId('choice').append(select);
  }

  document.querySelector('h1').textContent = data.scenario;
  offerChoice();
  showCompared();
  show();

  let width = byId('plots').clientWidth;
  let waiting = null;
  const again = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => showPlots(data.subjects[current[0]].rounds[current[1]]), 100);
  };
  window.addEventListener('resize', () => {
    if (byId('plots').clientWidth !== width) {
      width = byId('plots').clientWidth;
      again();
    }
  });
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', again);
}
