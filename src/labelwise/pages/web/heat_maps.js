// Matrices in colours.

const NUMBERS_FIT = 160;

/**
 * @param {HeatMapPanel} heatMap
 * @returns {Drawn}
 */
function makeHeatMap(heatMap) {
  const plot = new Plot({
    name: heatMap.name,
    title: heatMap.title,
    height: Math.min(760, Math.max(300, 150 + 30 * heatMap.rows.length)),
    build: () => ({ traces: [makeMatrix(heatMap)], layout: layOutMatrix(heatMap) }),
  });
  const figure = make('figure', { 'aria-labelledby': `${heatMap.name}-title` }, plot.element);
  const card = makeCard(heatMap, figure, makeDataTable(() => readMatrix(heatMap)));
  if (heatMap.columns.length <= 10) card.classList.add('half');
  return { element: card, remove: () => plot.remove() };
}

/**
 * @param {HeatMapPanel} heatMap
 * @returns {number[][]}
 */
function readRows({ values, rows, columns }) {
  return rows.map((_, i) => Array.from(values.subarray(i * columns.length, (i + 1) * columns.length)));
}

/** @param {HeatMapPanel} heatMap */
function makeMatrix(heatMap) {
  const values = readRows(heatMap);
  const [zmin, zmax] = heatMap.limits ?? extent(values);
  const showsNumbers = heatMap.values.length <= NUMBERS_FIT;
  return {
    type: 'heatmap',
    x: heatMap.columns.map((_, k) => k),
    y: heatMap.rows.map((_, i) => i),
    z: values.map((row) => row.map((value) => (Number.isFinite(value) ? value : null))),
    zmin,
    zmax,
    colorscale: plotScale(),
    xgap: showsNumbers ? 1 : 0,
    ygap: showsNumbers ? 1 : 0,
    colorbar: { title: { text: plotText(heatMap.label, 60), side: 'right' }, thickness: 12, outlinewidth: 0 },
    hoverinfo: 'text',
    hovertext: values.map((row, i) => row.map((value, k) => hoverOfCell(heatMap, i, k, value))),
    ...(showsNumbers && { text: values.map((row) => row.map((value) => formatNumber(value, 3))), texttemplate: '%{text}' }),
  };
}

/**
 * @param {HeatMapPanel} heatMap
 * @param {number} i
 * @param {number} k
 * @param {number} value
 */
function hoverOfCell(heatMap, i, k, value) {
  const lines = [`${heatMap.rows[i]}, ${heatMap.columns[k]}`, `${heatMap.label}: ${formatNumber(value, 4)}`];
  return lines.map((line) => plotText(line, 90)).join('<br>');
}

/** @param {HeatMapPanel} heatMap */
function layOutMatrix(heatMap) {
  /** @type {(names: string[]) => any} */
  const ticks = (names) => {
    const step = Math.ceil(names.length / 40);
    const places = names.map((_, i) => i).filter((i) => i % step === 0);
    return { tickvals: places, ticktext: places.map((i) => plotText(names[i], 24)), showgrid: false };
  };
  return {
    xaxis: makeAxis('', { ...ticks(heatMap.columns), title: { text: '' } }),
    yaxis: makeAxis('', { ...ticks(heatMap.rows), title: { text: '' }, autorange: 'reversed' }),
  };
}

/**
 * @param {HeatMapPanel} heatMap
 * @returns {TableContent}
 */
function readMatrix(heatMap) {
  return {
    title: `${heatMap.title}: ${heatMap.label}`,
    columns: [{ name: 'row', digits: null }, ...heatMap.columns.map((name) => ({ name, digits: 4 }))],
    rows: readRows(heatMap).map((row, i) => [heatMap.rows[i], ...row.map(asCell)]),
    open: null,
  };
}
