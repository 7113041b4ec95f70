// Charts: lines with bands, steps, points, bars.

const DASHES = ['solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot'];
const MOST_COUNTED = 12;
const WORD_ANGLES = [0, -35, -90]; // words end at their tick, so that the last one is not cut off
const MARKERS = ['circle', 'square', 'diamond', 'triangle-up', 'x', 'triangle-down', 'star', 'cross'];
const CHART_HEIGHT = 400;
const MANY_POINTS = 3000;
const LONGEST_TICK = 22;

/**
 * @param {ChartPanel} chart
 * @param {PageContext} context
 * @returns {Drawn}
 */
function makeChart(chart, context) {
  const state = { showsBands: true };
  const hasBands = chart.series.some((series) => series.low !== null);
  const size = chart.series.reduce((total, series) => total + series.y.length, 0);
  const usesGraphics = chart.mark === 'points' && size > MANY_POINTS && hasWebGL;
  const words = readWords(chart);
  const plot = new Plot({
    name: chart.name,
    title: chart.title,
    height: CHART_HEIGHT + 20 * Math.max(0, Math.ceil(chart.series.length / 3) - 2),
    usesGraphics,
    build: () => ({
      traces: chart.series.flatMap((series, i) =>
        makeSeries(chart, series, { style: series.style ?? i, words, usesGraphics, showsBands: state.showsBands }),
      ),
      layout: layOutChart(chart, words),
    }),
    whenDrawn: (element) => element.on('plotly_click', (/** @type {any} */ event) => openClicked(chart, event, context)),
  });
  const bands = hasBands && chart.band_name
    ? makeSwitch(`Show ${chart.band_name}`, true, (isOn) => {
        state.showsBands = isOn;
        void plot.draw();
      })
    : null;
  const tools = bands === null ? null : make('div.tools', {}, bands);
  const figure = make('figure', { 'aria-labelledby': `${chart.name}-title` }, plot.element);
  const card = makeCard(chart, tools, figure, makeDataTable(() => readChart(chart, context)));
  card.classList.add(chart.diagonal ? 'square' : 'half');
  return { element: card, remove: () => plot.remove() };
}

/**
 * The words of a chart's abscissa in order of first appearance; null if they are numbers.
 * @param {ChartPanel} chart
 * @returns {string[] | null}
 */
function readWords(chart) {
  const words = chart.series.flatMap((series) => (Array.isArray(series.x) ? series.x.map(String) : []));
  return words.length > 0 ? [...new Set(words)] : null;
}

/**
 * @param {ChartPanel} chart
 * @param {Series} series
 * @param {SeriesSettings} settings
 * @returns {any[]}
 */
function makeSeries(chart, series, settings) {
  const words = settings.words;
  const x = words === null ? Array.from(/** @type {any} */ (series.x)) : Array.from(/** @type {string[]} */ (series.x), (word) => words.indexOf(word));
  const y = Array.from(series.y, (value) => (Number.isFinite(value) ? value : null));
  const base = {
    x,
    y,
    name: plotText(series.name, 48),
    legendgroup: `series ${chart.series.indexOf(series)}`,
    hoverinfo: 'text',
    hovertext: x.map((_, k) => hoverOf(chart, series, k)),
    showlegend: chart.series.length > 1,
  };
  if (chart.mark === 'bars' || chart.mark === 'stacked') return [makeBars(base, series, settings)];
  if (chart.mark === 'points') return [makePoints(base, series, settings)];
  const line = { color: seriesColour(settings.style), dash: DASHES[settings.style % DASHES.length], width: 2 };
  if (chart.mark === 'steps') return [{ ...base, type: 'scatter', mode: 'lines', line: { ...line, shape: 'hv' } }];
  const marker = { symbol: MARKERS[settings.style % MARKERS.length], size: x.length > 60 ? 4 : 8, color: line.color };
  const lines = { ...base, type: 'scatter', mode: 'lines+markers', line, marker };
  return settings.showsBands && series.low !== null ? [...makeBand(base, series, line.color), lines] : [lines];
}

/**
 * @param {any} base
 * @param {Series} series
 * @param {string} lineColour
 */
function makeBand(base, series, lineColour) {
  const [low, high] = [series.low, series.high].map((ends) => /** @type {Float32Array} */ (ends));
  const known = base.x.map((/** @type {unknown} */ _, /** @type {number} */ k) => k).filter((/** @type {number} */ k) => isFinite(low[k]) && isFinite(high[k]));
  const common = { type: 'scatter', mode: 'lines', line: { width: 0 }, hoverinfo: 'skip', showlegend: false, legendgroup: base.legendgroup };
  const x = known.map((/** @type {number} */ k) => base.x[k]);
  return [
    { ...common, x, y: known.map((/** @type {number} */ k) => low[k]) },
    { ...common, x, y: known.map((/** @type {number} */ k) => high[k]), fill: 'tonexty', fillcolor: `${lineColour}2e` },
  ];
}

/**
 * @param {any} base
 * @param {Series} series
 * @param {SeriesSettings} settings
 */
function makePoints(base, series, settings) {
  const isMany = base.x.length > 300;
  const marker = {
    symbol: MARKERS[settings.style % MARKERS.length],
    size: isMany ? 5 : 8,
    opacity: isMany ? 0.55 : 0.85,
    color: seriesColour(settings.style),
  };
  const bars = readErrorBars(series, marker.color);
  return { ...base, type: settings.usesGraphics ? 'scattergl' : 'scatter', mode: 'markers', marker, ...(bars && { error_y: bars }) };
}

/**
 * @param {any} base
 * @param {Series} series
 * @param {SeriesSettings} settings
 */
function makeBars(base, series, settings) {
  const shapes = ['', '/', '\\', 'x', '-', '|', '+', '.'];
  const fill = seriesColour(settings.style);
  const pattern = { shape: shapes[settings.style % shapes.length], bgcolor: fill, fgcolor: colour('card'), solidity: 0.2, size: 7 };
  const bars = settings.showsBands ? readErrorBars(series, colour('text')) : null;
  return { ...base, type: 'bar', marker: { color: fill, pattern }, ...(bars && { error_y: bars }) };
}

/**
 * @param {Series} series
 * @param {string} barColour
 */
function readErrorBars({ y, low, high }, barColour) {
  if (low === null || high === null) return null;
  return {
    type: 'data',
    symmetric: false,
    array: Array.from(high, (value, k) => value - y[k]),
    arrayminus: Array.from(low, (value, k) => y[k] - value),
    color: barColour,
    thickness: 1.2,
    width: 3,
  };
}

/**
 * @param {ChartPanel} chart
 * @param {Series} series
 * @param {number} k
 */
function hoverOf(chart, series, k) {
  const x = series.x[k];
  const range = series.low === null || series.high === null ? '' : ` (${formatNumber(series.low[k], 4)} to ${formatNumber(series.high[k], 4)})`;
  const lines = [
    series.name,
    `${chart.x.label}: ${typeof x === 'number' ? formatNumber(x, 5) : x}`,
    `${chart.y.label}: ${formatNumber(series.y[k], 4)}${range}`,
  ];
  return lines.map((line) => plotText(line, 90)).join('<br>');
}

/**
 * @param {ChartPanel} chart
 * @param {string[] | null} words
 */
function layOutChart(chart, words) {
  const x = makeAxis(chart.x.label, chart.x.is_log && words === null ? logTicks(chart.series.map((series) => /** @type {any} */ (series.x))) : {});
  const y = makeAxis(chart.y.label, chart.y.is_log ? logTicks(chart.series.map((series) => series.y)) : {});
  const layout = { xaxis: x, yaxis: y, hovermode: 'closest', barmode: chart.mark === 'stacked' ? 'stack' : 'group' };
  if (words === null && !chart.x.is_log && isCounted(chart)) x.dtick = 1;
  if (words !== null) Object.assign(x, { autotickangles: WORD_ANGLES, tickvals: words.map((_, i) => i), ticktext: words.map((word) => plotText(word, LONGEST_TICK)) });
  return chart.diagonal ? addDiagonal(layout, chart) : layout;
}

/**
 * Whether abscissae are a few whole numbers, such as rounds, between which there is nothing.
 * @param {ChartPanel} chart
 */
function isCounted(chart) {
  const values = chart.series.flatMap((series) => Array.from(/** @type {ArrayLike<number>} */ (series.x)));
  const [low, high] = extent([values]);
  return high - low <= MOST_COUNTED && values.every(Number.isInteger);
}

/**
 * Ticks of a logarithmic axis, as plain numbers where they are not too many.
 * @param {ArrayLike<number>[]} arrays
 */
function logTicks(arrays) {
  const [low, high] = extent(arrays.map((values) => Array.from(values, (value) => (value > 0 ? Math.log10(value) : NaN))));
  const decades = high - low;
  const steps = decades > 4 ? [1] : decades > 2 ? [1, 3] : decades > 0.8 ? [1, 2, 5] : [1, 2, 3, 5, 7];
  const tickvals = [];
  for (let power = Math.floor(low) - 1; power <= Math.ceil(high); power += 1) {
    tickvals.push(...steps.map((step) => Number(`${step}e${power}`)));
  }
  return { type: 'log', tickvals, ticktext: tickvals.map((value) => formatNumber(value, 1)) };
}

/**
 * @param {any} layout
 * @param {ChartPanel} chart
 */
function addDiagonal(layout, chart) {
  const isLog = chart.x.is_log && chart.y.is_log;
  const values = chart.series.flatMap((series) => [/** @type {any} */ (series.x), series.y]);
  const usable = isLog ? values.map((array) => Array.from(array, (value) => (value > 0 ? Math.log10(value) : NaN))) : values;
  const [low, high] = extent(usable);
  const margin = 0.04 * (high - low || 1);
  const range = [low - margin, high + margin];
  Object.assign(layout.xaxis, { range });
  Object.assign(layout.yaxis, { range: [...range] });
  const [from, to] = range.map((end) => (isLog ? 10 ** end : end));
  layout.shapes = [
    { type: 'line', x0: from, y0: from, x1: to, y1: to, layer: 'below', line: { color: colour('quiet'), width: 1.2, dash: 'dash' } },
  ];
  return layout;
}

/**
 * @param {ChartPanel} chart
 * @param {any} event
 * @param {PageContext} context
 */
function openClicked(chart, event, context) {
  const point = event.points.find((/** @type {any} */ found) => found.data.hoverinfo !== 'skip');
  if (point === undefined) return;
  const series = chart.series[Number(point.data.legendgroup.split(' ')[1])];
  const structure = series.structure === null ? -1 : series.structure[point.pointNumber];
  if (structure >= 0) context.openStructure(structure, hoverLines(chart, series, point.pointNumber));
}

/**
 * @param {ChartPanel} chart
 * @param {Series} series
 * @param {number} k
 * @returns {[string, string][]}
 */
function hoverLines(chart, series, k) {
  const x = series.x[k];
  return [
    ['series', series.name],
    [chart.x.label, typeof x === 'number' ? formatNumber(x, 5) : String(x)],
    [chart.y.label, formatNumber(series.y[k], 4)],
  ];
}

/**
 * @param {ChartPanel} chart
 * @param {PageContext} context
 * @returns {TableContent}
 */
function readChart(chart, context) {
  const hasBands = chart.series.some((series) => series.low !== null);
  const places = chart.series.flatMap((series) => Array.from(series.y, (_, k) => /** @type {[Series, number]} */ ([series, k])));
  const isWhole = places.every(([series, k]) => typeof series.x[k] !== 'number' || Number.isInteger(series.x[k]));
  const band = hasBands ? [{ name: 'low', digits: 4 }, { name: 'high', digits: 4 }] : [];
  return {
    title: `${chart.title}: data`,
    columns: [{ name: 'series', digits: null }, { name: chart.x.label, digits: isWhole ? null : 6 }, { name: chart.y.label, digits: 4 }, ...band],
    rows: places.map(([series, k]) => [
      series.name,
      series.x[k],
      asCell(series.y[k]),
      ...(hasBands ? [asCell(series.low?.[k]), asCell(series.high?.[k])] : []),
    ]),
    open: chart.series.some((series) => series.structure !== null)
      ? (row) => {
          const [series, k] = places[row];
          const structure = series.structure?.[k] ?? -1;
          return structure < 0 ? null : () => context.openStructure(structure, hoverLines(chart, series, k));
        }
      : null,
  };
}

/** @param {number | undefined} value */
function asCell(value) {
  return value === undefined || Number.isNaN(value) ? null : value;
}
