// Structures side by side, and the dialog that shows one.

/** A structure, perhaps beside another, with switches for how they are shown. */
class StructureView {
  /** @param {StructureSet | null} set */
  constructor(set) {
    this.set = set;
    this.options = { showsLabels: false, isSpinning: false, coloursByValue: false, limits: /** @type {[number, number]} */ ([0, 1]), flattest: 2 };
    this.places = [makeViewerPlace(), makeViewerPlace()];
    this.pair = make('div.pair', {}, ...this.places.map((place) => place.element));
    this.scale = make('div.ramp', { hidden: true });
    this.byValue = makeSwitch(`Colour atoms by ${set?.atom_label || 'value'}`, false, (isOn) => this.change({ coloursByValue: isOn }));
    const switches = make(
      'div.tools',
      {},
      makeSwitch('Labels', false, (isOn) => this.change({ showsLabels: isOn })),
      makeSwitch('Spin', false, (isOn) => this.change({ isSpinning: isOn })),
      this.byValue,
    );
    this.element = make('div.structures', { hidden: true }, this.pair, this.scale, switches);
  }

  /**
   * @param {ShownStructure[]} shown one or two; with a place of -1, the structure is not in the file
   */
  show(shown) {
    const packed = shown.map(({ place }) => (this.set === null || place < 0 || !hasWebGL ? null : readStructure(this.set, place)));
    this.element.hidden = packed.every((structure) => structure === null);
    const values = packed.flatMap((structure) => (structure?.values ? [structure.values] : []));
    this.byValue.hidden = values.length === 0;
    const [low, high] = extent(values);
    /** @type {[number, number]} */
    const limits = [Math.min(0, low), high];
    this.options = { ...this.options, limits };
    this.places.forEach((place, i) => {
      place.element.hidden = i >= shown.length;
      if (i < shown.length) void this.fill(place, shown[i], packed[i], packed[0]);
      else place.viewer.clear();
    });
    this.fillScale(values.length > 0);
  }

  /**
   * @param {ViewerPlace} place
   * @param {ShownStructure} shown
   * @param {Structure | null} structure
   * @param {Structure | null} first of the structures shown
   */
  async fill(place, shown, structure, first) {
    place.caption.replaceChildren(make('strong', {}, shown.title), make('span.name', {}, structure?.formula ?? ''), make('span.name.quiet', {}, shown.name));
    place.absent.hidden = structure !== null;
    place.viewer.element.hidden = structure === null;
    if (structure === null) {
      place.viewer.clear();
      return;
    }
    // Two of one formula are seen from the same side, so that they can be compared.
    const seen = first?.formula === structure.formula ? first : structure;
    await place.viewer.show(structure, { ...this.options, flattest: flattestAxis(seen) });
  }

  /** @param {Partial<ViewerOptions>} options */
  change(options) {
    this.options = { ...this.options, ...options };
    for (const { viewer } of this.places) viewer.change(this.options);
    this.fillScale(!this.byValue.hidden);
  }

  /** @param {boolean} hasValues */
  fillScale(hasValues) {
    this.scale.hidden = !hasValues || !this.options.coloursByValue;
    if (!this.scale.hidden) this.scale.replaceChildren(...makeScale(this.set?.atom_label ?? '', this.options.limits));
  }

  clear() {
    for (const { viewer } of this.places) viewer.clear();
    this.element.hidden = true;
  }
}

/** @returns {ViewerPlace} */
function makeViewerPlace() {
  const viewer = new Viewer();
  const caption = make('figcaption');
  const absent = make('p.absent', { hidden: true }, 'Not in this file: it can be looked at where it was read from.');
  return { viewer, caption, absent, element: make('figure', {}, caption, viewer.element, absent) };
}

/**
 * A colour scale with its ends.
 * @param {string} label
 * @param {[number, number]} limits
 * @param {[string, string]} [marks] before its ends
 * @returns {HTMLElement[]}
 */
function makeScale(label, [low, high], marks = ['', '']) {
  const bar = make('span.gradient');
  bar.style.background = `linear-gradient(to right, ${scaleColours().join(', ')})`;
  return [
    make('span', {}, label),
    make('span.number', {}, marks[0] + formatNumber(low, 3)),
    bar,
    make('span.number', {}, marks[1] + formatNumber(high, 3)),
  ];
}

/**
 * Lines of names and values.
 * @param {[string, string][]} lines
 */
function makeLines(lines) {
  return make('dl.lines', {}, ...lines.map(([name, text]) => make('div', {}, make('dt', {}, name), make('dd', {}, text))));
}

/** The dialog in which charts show a structure. */
class StructureDialog {
  /** @param {PageContext} context */
  constructor(context) {
    this.context = context;
    this.view = new StructureView(context.structures);
    this.heading = make('h2', { id: 'page-dialog-title' });
    this.lines = make('div');
    this.toMap = make('button', { type: 'button' }, 'Show on the map');
    const close = make('button', { type: 'button', click: () => this.element.close() }, 'Close');
    this.element = make(
      'dialog',
      { 'aria-labelledby': this.heading.id, close: () => this.view.clear() },
      this.heading,
      this.view.element,
      this.lines,
      make('div.tools', {}, this.toMap, close),
    );
    document.body.append(this.element);
  }

  /**
   * @param {number} place
   * @param {[string, string][]} lines
   */
  show(place, lines) {
    const set = this.context.structures;
    if (set === null) return;
    this.heading.textContent = visible(set.formulas[place]);
    this.lines.replaceChildren(makeLines([['structure', set.names[place]], ...lines]));
    const found = this.context.findPoint(place);
    this.toMap.hidden = found === null;
    this.toMap.onclick = () => {
      this.element.close();
      if (found !== null) this.context.openPoint(...found);
    };
    if (!this.element.open) this.element.showModal();
    this.view.show([{ title: '', name: set.names[place], place }]);
  }
}

/**
 * What panels need to know of the page.
 * @param {ReportDocument} report
 * @returns {PageContext}
 */
function makeContext(report) {
  /** @type {Map<string, MapView>} */
  const maps = new Map();
  /** @type {StructureDialog | null} */
  let dialog = null;
  /** @type {PageContext} */
  const context = {
    structures: report.structures,
    maps,
    openStructure: (place, lines) => {
      dialog ??= new StructureDialog(context);
      dialog.show(place, lines);
    },
    openPoint: (name, point) => maps.get(name)?.openFromOutside(point),
    findPoint: (place) => {
      for (const [name, map] of maps) {
        const point = map.panel.structure.indexOf(place);
        if (point >= 0) return [name, point];
      }
      return null;
    },
  };
  return context;
}
