// Structures as points in a plane.

const MAP_HEIGHT = 560;
const MAP_HEIGHT_PHONE = 420;
const MILLISECONDS_A_ROUND = 1000;
const MOST_IN_TOOLTIP = 7;

/**
 * @param {MapPanel} panel
 * @param {PageContext} context
 * @returns {Drawn}
 */
function makePoolMap(panel, context) {
  const view = new MapView(panel, context);
  context.maps.set(panel.name, view);
  return { element: view.element, remove: () => view.plot.remove() };
}

class MapView {
  /**
   * @param {MapPanel} panel
   * @param {PageContext} context
   */
  constructor(panel, context) {
    this.panel = panel;
    this.context = context;
    this.lastRound = panel.rounds === null ? 0 : panel.rounds.reduce((most, round) => Math.max(most, round), 0);
    this.round = this.lastRound;
    this.selected = -1;
    /** @type {Uint8Array} */
    this.roles = panel.roles;
    /** @type {number[]} points to step through */
    this.stops = [];
    this.stopsAreChosen = false;
    /** @type {Layer[]} */
    this.layers = [];
    /** @type {Set<number>} */
    this.hiddenRoles = new Set();
    /** @type {Set<number>} */
    this.hiddenGroups = new Set();
    this.colouring = makeColouring(panel, panel.colour_by);
    this.setRound(this.round);
    this.range = [extent([panel.x]), extent([panel.y])].map(([low, high]) => [low - 0.05 * (high - low || 1), high + 0.05 * (high - low || 1)]);
    this.plot = this.makePlot();
    this.legend = make('div.keys');
    this.point = new PointPanel(this);
    this.element = this.makeElement();
    this.fillLegend();
  }

  makePlot() {
    return new Plot({
      name: this.panel.name,
      title: this.panel.title,
      height: innerWidth < 700 ? MAP_HEIGHT_PHONE : MAP_HEIGHT,
      usesGraphics: hasWebGL,
      build: () => ({ traces: this.makeTraces(), layout: this.layOut() }),
      whenDrawn: (element) => this.listen(element),
    });
  }

  makeElement() {
    const { panel } = this;
    const figure = make('figure', { 'aria-labelledby': `${panel.name}-title` }, this.plot.element);
    const left = make('div.plane', {}, this.makeTools(), this.legend, figure, panel.rounds === null ? null : this.makeSlider());
    const card = makeCard(panel, make('div.map', {}, left, this.point.element, this.point.values), makeDataTable(() => this.readTable()));
    card.classList.add('wide');
    return card;
  }

  makeTools() {
    const names = ['role', ...this.panel.columns.map((column) => column.name)];
    const select = make('select', {}, ...names.map((name, i) => make('option', { value: String(i) }, name)));
    select.value = String(Math.max(0, this.panel.columns.findIndex((column) => column.name === this.panel.colour_by) + 1));
    select.addEventListener('change', () => {
      this.colouring = makeColouring(this.panel, select.value === '0' ? null : names[Number(select.value)]);
      this.hiddenGroups.clear();
      this.refresh();
    });
    return make('div.tools', {}, labelled('Colour by', select));
  }

  makeSlider() {
    const slider = make('input', { type: 'range', min: '0', max: String(this.lastRound), step: '1' });
    slider.value = String(this.round);
    const said = make('output');
    const show = () => {
      this.setRound(Number(slider.value));
      said.textContent = this.describeRound();
      slider.setAttribute('aria-valuetext', said.textContent);
      this.refresh();
      this.point.updateSteps();
    };
    slider.addEventListener('input', show);
    said.textContent = this.describeRound();
    slider.setAttribute('aria-valuetext', said.textContent);
    return make('div.tools.slider', {}, labelled('Round', slider), this.makePlayButton(slider, show), said);
  }

  /**
   * @param {HTMLInputElement} slider
   * @param {() => void} show
   */
  makePlayButton(slider, show) {
    let timer = 0;
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      button.textContent = 'Play';
    };
    const advance = () => {
      slider.value = String(Number(slider.value) + 1);
      show();
      if (Number(slider.value) >= this.lastRound) stop();
    };
    const play = () => {
      if (Number(slider.value) >= this.lastRound) slider.value = '0';
      show();
      timer = window.setInterval(advance, MILLISECONDS_A_ROUND);
      button.textContent = 'Pause';
    };
    const button = make('button.small', { type: 'button', click: () => (timer === 0 ? play() : stop()) }, 'Play');
    return button;
  }

  describeRound() {
    const rounds = /** @type {Int32Array} */ (this.panel.rounds);
    const count = rounds.reduce((total, round) => total + Number(round >= 0 && round <= this.round), 0);
    const fresh = rounds.reduce((total, round) => total + Number(round === this.round), 0);
    const news = this.round > 0 ? `, ${fresh} of them new` : '';
    return `round ${this.round} of ${this.lastRound}: ${count} labelled${news}`;
  }

  /** @param {number} round */
  setRound(round) {
    this.round = round;
    this.roles = rolesAt(this.panel, round);
    const noted = this.panel.notes.map((note) => note.point).filter((point) => this.roles[point] === CHOSEN);
    const isNoted = new Set(noted);
    const places = Array.from(this.roles.keys());
    const chosen = [...noted, ...places.filter((point) => this.roles[point] === CHOSEN && !isNoted.has(point))];
    this.stopsAreChosen = chosen.length > 0;
    this.stops = this.stopsAreChosen ? chosen : places.filter((point) => this.roles[point] === LABELLED);
  }

  makeTraces() {
    this.layers = sortIntoLayers(this.panel, this.roles, this.colouring).filter(
      (layer) => !this.hiddenRoles.has(layer.role) && !this.hiddenGroups.has(layer.group),
    );
    return this.layers.map((layer) => makeLayer(this.panel, layer, this.colouring));
  }

  layOut() {
    return {
      xaxis: makeAxis(this.panel.x_label, { range: [...this.range[0]], showticklabels: false, ticks: '' }),
      yaxis: makeAxis(this.panel.y_label, { range: [...this.range[1]], showticklabels: false, ticks: '' }),
      uirevision: 'kept',
      hovermode: 'closest',
      hoverdistance: 14,
      dragmode: innerWidth < 700 ? 'pan' : 'zoom',
      shapes: this.markSelected(),
      margin: { l: 36, r: 10, t: 34, b: 40 },
    };
  }

  /** Rings around the selected point and its neighbour, and a line between them. */
  markSelected() {
    const point = this.selected;
    if (point < 0) return [];
    const neighbour = this.panel.neighbour[point];
    const at = (/** @type {number} */ i) => [this.panel.x[i], this.panel.y[i]];
    /** @type {(i: number, radius: number, dash: string) => any} */
    const ring = (i, radius, dash) => ({
      type: 'circle',
      xsizemode: 'pixel',
      ysizemode: 'pixel',
      xanchor: at(i)[0],
      yanchor: at(i)[1],
      ...{ x0: -radius, x1: radius, y0: -radius, y1: radius },
      line: { color: colour('text'), width: 2, dash },
    });
    if (neighbour < 0) return [ring(point, 13, 'solid')];
    const [[x0, y0], [x1, y1]] = [at(point), at(neighbour)];
    const line = { type: 'line', x0, y0, x1, y1, line: { color: colour('text'), width: 1, dash: 'dot' } };
    return [line, ring(point, 13, 'solid'), ring(neighbour, 11, 'dot')];
  }

  /** @param {any} element */
  listen(element) {
    const pointOf = (/** @type {any} */ event) => this.layers[event.points[0].curveNumber].points[event.points[0].pointNumber];
    element.on('plotly_click', (/** @type {any} */ event) => this.open(pointOf(event)));
    element.on('plotly_hover', (/** @type {any} */ event) => this.showTooltip(pointOf(event), event.event));
    element.on('plotly_unhover', () => { byId('page-tooltip').hidden = true; });
    afterDrawing.push(() => {
      if (this.selected < 0 && this.stops.length > 0) this.open(this.stops[0]);
    });
  }

  /**
   * @param {number} point
   * @param {MouseEvent} event
   */
  showTooltip(point, event) {
    const tooltip = byId('page-tooltip');
    const lines = this.valuesOf(point).slice(0, MOST_IN_TOOLTIP);
    tooltip.replaceChildren(make('strong', {}, this.nameOf(point)), make('span', {}, this.describeRole(point)), makeLines(lines));
    tooltip.hidden = false;
    const { width, height } = tooltip.getBoundingClientRect();
    tooltip.style.left = `${Math.max(4, Math.min(event.clientX + 16, innerWidth - width - 8))}px`;
    tooltip.style.top = `${Math.max(4, Math.min(event.clientY + 16, innerHeight - height - 8))}px`;
  }

  refresh() {
    this.fillLegend();
    void this.plot.draw();
  }

  fillLegend() {
    const roleCounts = new Array(ROLES.length).fill(0);
    for (const role of this.roles) roleCounts[role] += 1;
    const { colouring, hiddenRoles, hiddenGroups } = this;
    const whenChanged = () => void this.plot.draw();
    this.legend.replaceChildren(...makeLegend({ roleCounts, colouring, hiddenRoles, hiddenGroups, whenChanged }));
  }

  /** @param {number} point whose structure is shown beside the map */
  open(point) {
    this.selected = point;
    byId('page-tooltip').hidden = true;
    this.point.show(point);
    if (this.plot.isDrawn) void Plotly.relayout(this.plot.element, { shapes: this.markSelected() });
  }

  /** @param {number} point */
  openFromOutside(point) {
    this.open(point);
    this.element.scrollIntoView({ behavior: 'auto', block: 'start' });
    this.point.heading.focus({ preventScroll: innerWidth >= 1000 });
  }

  /** @param {number} step to the previous or the next of the chosen */
  step(step) {
    const place = this.stops.indexOf(this.selected);
    const next = place < 0 ? 0 : place + step;
    if (next >= 0 && next < this.stops.length) this.open(this.stops[next]);
  }

  /** @param {number} point */
  nameOf(point) {
    return `${this.panel.files[this.panel.file[point]]}@${this.panel.frame[point]}`;
  }

  /** @param {number} point */
  describeRole(point) {
    const round = this.panel.rounds?.[point] ?? -1;
    const role = ROLES[this.roles[point]];
    return round > 0 && round <= this.round ? `${role}, round ${round}` : role;
  }

  /** @type {Map<NumberColumn, number | null>} */
  digits = new Map();

  /**
   * Numbers that are all whole are shown as they are.
   * @param {NumberColumn} column
   */
  digitsOf(column) {
    const known = this.digits.get(column);
    if (known !== undefined) return known;
    const isWhole = column.values.every((value) => Number.isNaN(value) || Number.isInteger(value));
    this.digits.set(column, isWhole ? null : 4);
    return isWhole ? null : 4;
  }

  /**
   * @param {number} point
   * @returns {[string, string][]}
   */
  valuesOf(point) {
    return this.panel.columns.map((column) => {
      if (column.is === 'CategoryColumn') return [column.name, column.categories[column.codes[point]] ?? '–'];
      const unit = column.unit ? ` ${column.unit}` : '';
      return [column.name, `${formatNumber(column.values[point], this.digitsOf(column))}${unit}`];
    });
  }

  /**
   * Points whose name holds a text; those that were chosen or labelled first.
   * @param {string} wanted in lower case
   * @param {number} most
   */
  search(wanted, most) {
    /** @type {number[]} */
    const found = [];
    for (let role = CHOSEN; role >= 0 && found.length < most; role -= 1) {
      for (let point = 0; point < this.roles.length && found.length < most; point += 1) {
        if (this.roles[point] === role && visible(this.nameOf(point)).toLowerCase().includes(wanted)) found.push(point);
      }
    }
    return found;
  }

  /** @returns {TableContent} */
  readTable() {
    const { panel } = this;
    return {
      title: `${panel.title}: points`,
      columns: [
        ...['structure', 'role'].map((name) => ({ name, digits: null })),
        ...panel.columns.map((column) => ({ name: 'unit' in column && column.unit ? `${column.name} / ${column.unit}` : column.name, digits: 4 })),
      ],
      rows: Array.from(this.roles, (role, point) => [
        this.nameOf(point),
        ROLES[role],
        ...panel.columns.map((column) => (column.is === 'CategoryColumn' ? (column.categories[column.codes[point]] ?? null) : asCell(column.values[point]))),
      ]),
      open: (row) => () => this.openFromOutside(row),
    };
  }
}
