// The points of a map, sorted into layers that are drawn alike.

const ROLES = ['set aside', 'pool', 'shortlisted', 'labelled', 'chosen'];
const [SCREENED, POOL, SHORTLISTED, LABELLED, CHOSEN] = ROLES.keys();

/** How each role is drawn; the size of the pool's points depends on how many there are. */
const ROLE_STYLES = [
  { symbol: 'x', size: 0.8, colour: 'other', opacity: 0.5 },
  { symbol: 'circle', size: 1, colour: 'pool', opacity: 0.5 },
  { symbol: 'triangle-up', size: 1.6, colour: 'shortlisted', opacity: 0.75 },
  { symbol: 'diamond', size: 1.9, colour: 'labelled', opacity: 0.9 },
  { symbol: 'star', size: 2.7, colour: 'chosen', opacity: 1 },
];

/** Width of the line around marks of each role, in pixels. */
const OUTLINES = [0, 0, 0, 0.9, 1.4];

/**
 * The role of each point as of a round.
 * @param {MapPanel} map
 * @param {number} round
 * @returns {Uint8Array}
 */
function rolesAt(map, round) {
  const rounds = map.rounds;
  if (rounds === null) return map.roles;
  return map.roles.map((role, i) => {
    if (rounds[i] < 0) return role;
    if (rounds[i] > round) return POOL;
    return rounds[i] === round && round > 0 ? CHOSEN : LABELLED;
  });
}

/** @param {number} n number of points */
function poolSize(n) {
  if (n > 20000) return 3.5;
  if (n > 3000) return 4.5;
  return n > 500 ? 5.5 : 7;
}

/**
 * Layers in the order in which they are drawn.
 * @param {MapPanel} map
 * @param {Uint8Array} roles
 * @param {Colouring} colouring
 * @returns {Layer[]}
 */
function sortIntoLayers(map, roles, colouring) {
  const n = map.x.length;
  const width = Math.max(1, colouring.groups.length);
  const groupOf = colouring.groupOf;
  const counts = new Int32Array(ROLES.length * width);
  const key = (/** @type {number} */ i) => roles[i] * width + (groupOf === null ? 0 : groupOf[i]);
  for (let i = 0; i < n; i += 1) counts[key(i)] += 1;
  const layers = Array.from(counts, (count, k) => ({ role: Math.floor(k / width), group: k % width, points: new Int32Array(count) }));
  counts.fill(0);
  for (let i = 0; i < n; i += 1) {
    const k = key(i);
    layers[k].points[counts[k]] = i;
    counts[k] += 1;
  }
  return layers.filter((layer) => layer.points.length > 0);
}

/**
 * @param {MapPanel} map
 * @param {Layer} layer
 * @param {Colouring} colouring
 * @returns {any}
 */
function makeLayer(map, layer, colouring) {
  const style = ROLE_STYLES[layer.role];
  const isNumber = colouring.kind === 'number' && layer.group === 0;
  const plain = colouring.kind === 'role' ? colour(style.colour) : groupColour(colouring, layer.group);
  const isPlain = colouring.kind === 'role';
  const outline = { color: colour(isPlain && layer.role !== CHOSEN ? 'card' : 'text'), width: OUTLINES[layer.role] };
  const scale = isNumber ? { cmin: colouring.limits[0], cmax: colouring.limits[1], colorscale: plotScale(), showscale: false } : {};
  return {
    type: hasWebGL ? 'scattergl' : 'scatter',
    mode: 'markers',
    name: ROLES[layer.role],
    x: pick(map.x, layer.points),
    y: pick(map.y, layer.points),
    hoverinfo: 'none',
    showlegend: false,
    marker: {
      symbol: style.symbol,
      size: style.size * Math.max(poolSize(map.x.length), layer.role > POOL ? 5 : 0),
      opacity: isPlain ? style.opacity : Math.max(0.65, style.opacity),
      color: isNumber ? pick(/** @type {Float32Array} */ (colouring.values), layer.points) : plain,
      line: outline,
      ...scale,
    },
  };
}

/**
 * @param {Float32Array} values
 * @param {Int32Array} places
 */
function pick(values, places) {
  const picked = new Float32Array(places.length);
  for (let k = 0; k < places.length; k += 1) picked[k] = values[places[k]];
  return picked;
}
