// One structure in three dimensions, drawn by 3Dmol.js.

const SYMBOLS = (
  'X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr ' +
  'Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu ' +
  'Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg ' +
  'Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og'
).split(' ');
const MOST_LABELS = 120;
const FIXED_PALENESS = 0.6;
const ZOOM = 1.2;

/**
 * One structure of those that are packed in the document.
 * @param {StructureSet} set
 * @param {number} place
 * @returns {Structure}
 */
function readStructure(set, place) {
  const [start, end] = [set.starts[place], set.starts[place + 1]];
  const cell = set.cells.subarray(9 * place, 9 * place + 9);
  const values = set.atom_values?.subarray(start, end) ?? null;
  return {
    name: set.names[place],
    formula: set.formulas[place],
    symbols: Array.from(set.numbers.subarray(start, end), (number) => SYMBOLS[number] ?? 'X'),
    positions: Float64Array.from(set.positions.subarray(3 * start, 3 * end), (value) => value * set.scales[place]),
    cell: cell.some(Number.isNaN) ? null : cell,
    values: values?.some(Number.isFinite) ? values : null,
    isFixed: set.fixed?.subarray(start, end) ?? null,
  };
}

/** A place where structures are shown; what is shown turns and zooms, with the mouse or with keys. */
class Viewer {
  constructor() {
    this.element = make('div.viewer', {
      tabindex: '0',
      role: 'application',
      'aria-roledescription': 'structure in three dimensions',
      keydown: (/** @type {KeyboardEvent} */ event) => this.turn(event),
    });
    /** @type {any} */
    this.viewer = null;
    this.isSpinning = false;
    whenThemeChanges(() => this.refresh());
    new ResizeObserver(() => this.viewer?.resize()).observe(this.element);
  }

  /**
   * @param {Structure} structure
   * @param {ViewerOptions} options
   */
  async show(structure, options) {
    this.structure = structure;
    this.options = options;
    this.element.setAttribute('aria-label', visible(`${structure.formula}, ${structure.name}; turn with arrow keys, zoom with + and −`));
    await loadLibrary('3dmol');
    if (this.structure !== structure || !this.element.isConnected) return;
    this.viewer ??= $3Dmol.createViewer(this.element, { antialias: !isSoftwareDrawn, disableFog: true });
    this.viewer.resize();
    this.viewer.removeAllModels();
    this.viewer.addModel(asXyz(structure), 'xyz', { keepH: true });
    this.style();
    this.viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
    for (const [angle, axis] of turnsOf(structure, options.flattest)) this.viewer.rotate(angle, axis);
    this.viewer.zoomTo();
    this.viewer.zoom(ZOOM);
    this.viewer.render();
    this.element.dataset.shows = visible(structure.name);
  }

  /** @param {ViewerOptions} options */
  change(options) {
    this.options = options;
    this.refresh();
  }

  refresh() {
    if (this.viewer === null || !this.structure) return;
    this.style();
    this.viewer.render();
  }

  style() {
    const { structure, options, viewer } = this;
    if (!structure || !options) return;
    viewer.setBackgroundColor(colour('well'), 1);
    const colorfunc = colourAtoms(structure, options);
    const scale = structure.cell === null ? 0.26 : 0.42;
    viewer.setStyle({}, { sphere: { scale, colorfunc }, stick: { radius: 0.11, colorfunc } });
    viewer.removeAllShapes();
    if (structure.cell !== null) drawCell(viewer, structure.cell);
    viewer.removeAllLabels();
    if (options.showsLabels) labelAtoms(viewer, structure);
    viewer.spin(options.isSpinning ? 'y' : false, 0.6);
  }

  /** @param {KeyboardEvent} event */
  turn(event) {
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowLeft: () => this.viewer.rotate(-15, 'y'),
      ArrowRight: () => this.viewer.rotate(15, 'y'),
      ArrowUp: () => this.viewer.rotate(-15, 'x'),
      ArrowDown: () => this.viewer.rotate(15, 'x'),
      '+': () => this.viewer.zoom(1.15),
      '-': () => this.viewer.zoom(1 / 1.15),
    };
    const action = actions[event.key];
    if (this.viewer === null || action === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
    this.viewer.render();
  }

  clear() {
    this.structure = undefined;
    delete this.element.dataset.shows;
    this.viewer?.spin(false);
    this.viewer?.clear();
    this.viewer?.render();
  }
}

/**
 * The axis along which a structure is thinnest.
 * @param {Structure} structure
 */
function flattestAxis({ positions }) {
  const spreads = [0, 1, 2].map((axis) => {
    const [low, high] = extent([positions.filter((_, i) => i % 3 === axis)]);
    return high - low;
  });
  return spreads.indexOf(Math.min(...spreads));
}

/**
 * Turns after which a slab's normal points upwards, and a molecule is seen from its broad side.
 * @param {Structure} structure
 * @param {number} flattest
 * @returns {[number, string][]}
 */
function turnsOf(structure, flattest) {
  if (structure.cell !== null) return [[-78, 'x'], [12, 'y']];
  return flattest === 2 ? [] : [[90, flattest === 0 ? 'y' : 'x']];
}

/** @param {Structure} structure */
function asXyz({ symbols, positions }) {
  const lines = symbols.map((symbol, i) => `${symbol} ${[...positions.subarray(3 * i, 3 * i + 3)].map((x) => x.toFixed(5)).join(' ')}`);
  return [symbols.length, '', ...lines].join('\n');
}

/**
 * A function that gives each atom its colour.
 * @param {Structure} structure
 * @param {ViewerOptions} options
 */
function colourAtoms(structure, options) {
  const { values, isFixed } = structure;
  const byValue = options.coloursByValue && values !== null;
  return (/** @type {any} */ atom) => {
    const own = byValue ? colourOfValue(values[atom.index], options.limits) : elementColour(atom.elem);
    return isFixed?.[atom.index] ? mixColours(own, parseColour(colour('well')), FIXED_PALENESS) : own;
  };
}

/** @param {string} symbol */
function elementColour(symbol) {
  const colours = $3Dmol.elementColors.Jmol;
  return colours[symbol] ?? 0xff1493;
}

/**
 * @param {number} value
 * @param {[number, number]} limits
 */
function colourOfValue(value, [low, high]) {
  if (!Number.isFinite(value)) return 0x999999;
  const colours = scaleColours();
  const place = Math.min(1, Math.max(0, (value - low) / (high - low || 1))) * (colours.length - 1);
  const below = Math.min(Math.floor(place), colours.length - 2);
  return mixColours(parseColour(colours[below]), parseColour(colours[below + 1]), place - below);
}

/** @param {string} text such as #a0b1c2 */
function parseColour(text) {
  return Number.parseInt(text.slice(1), 16);
}

/**
 * @param {number} a
 * @param {number} b
 * @param {number} share of b
 */
function mixColours(a, b, share) {
  /** @type {(shift: number) => number} */
  const mix = (shift) => Math.round(((a >> shift) & 255) * (1 - share) + ((b >> shift) & 255) * share) << shift;
  return mix(16) | mix(8) | mix(0);
}

/**
 * @param {any} viewer
 * @param {ArrayLike<number>} cell
 */
function drawCell(viewer, cell) {
  const vectors = [0, 1, 2].map((i) => [cell[3 * i], cell[3 * i + 1], cell[3 * i + 2]]);
  /** @type {(corner: number[]) => {x: number, y: number, z: number}} */
  const at = (corner) => {
    const [x, y, z] = [0, 1, 2].map((k) => vectors.reduce((total, vector, i) => total + corner[i] * vector[k], 0));
    return { x, y, z };
  };
  for (const axis of [0, 1, 2]) {
    for (const [u, v] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      const start = [u, v];
      start.splice(axis, 0, 0);
      const end = start.map((value, i) => (i === axis ? 1 : value));
      viewer.addCylinder({ start: at(start), end: at(end), radius: 0.04, color: colour('quiet') });
    }
  }
}

/**
 * @param {any} viewer
 * @param {Structure} structure
 */
function labelAtoms(viewer, { symbols, positions }) {
  const style = { fontSize: 11, fontColor: colour('text'), backgroundColor: colour('card'), backgroundOpacity: 0.75, inFront: true, alignment: 'center' };
  symbols.slice(0, MOST_LABELS).forEach((symbol, i) => {
    const [x, y, z] = positions.subarray(3 * i, 3 * i + 3);
    viewer.addLabel(`${symbol}${i}`, { ...style, position: { x, y, z } });
  });
}
