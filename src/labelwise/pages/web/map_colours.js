// What the points of a map are coloured by.

const MOST_CATEGORIES = 7;
const ROBUST = [0.02, 0.98];

/**
 * The groups of points that are coloured alike, or the scale.
 * @param {MapPanel} map
 * @param {string | null} name of a column; by role if null
 * @returns {Colouring}
 */
function makeColouring(map, name) {
  const column = map.columns.find((found) => found.name === name);
  if (column === undefined) return { kind: 'role', label: 'role', groups: [], groupOf: null, values: null, limits: [0, 1], unit: '' };
  return column.is === 'NumberColumn' ? colourByNumber(column) : colourByCategory(column);
}

/**
 * @param {NumberColumn} column
 * @returns {Colouring}
 */
function colourByNumber({ name, values, unit }) {
  const [low = 0, high = 1] = quantiles(values, ROBUST);
  const groupOf = Uint8Array.from(values, (value) => (Number.isFinite(value) ? 0 : 1));
  const unknown = groupOf.reduce((total, group) => total + group, 0);
  const groups = [{ name: 'known', count: values.length - unknown }, { name: 'not known', count: unknown }];
  return { kind: 'number', label: name, groups, groupOf, values, limits: [low, high], unit };
}

/**
 * @param {CategoryColumn} column
 * @returns {Colouring}
 */
function colourByCategory({ name, codes, categories }) {
  const shown = Math.min(categories.length, MOST_CATEGORIES);
  const groupOf = Uint8Array.from(codes, (code) => (code < 0 ? MOST_CATEGORIES + 1 : Math.min(code, MOST_CATEGORIES)));
  const names = Array.from({ length: MOST_CATEGORIES + 2 }, (_, i) => (i < shown ? categories[i] : ''));
  names[MOST_CATEGORIES] = `other (${categories.length - shown} more)`;
  names[MOST_CATEGORIES + 1] = 'not known';
  const counts = new Array(names.length).fill(0);
  for (const group of groupOf) counts[group] += 1;
  const groups = names.map((text, i) => ({ name: text, count: counts[i] }));
  return { kind: 'category', label: name, groups, groupOf, values: null, limits: [0, 1], unit: '' };
}

/**
 * The colour of a group.
 * @param {Colouring} colouring
 * @param {number} group
 */
function groupColour(colouring, group) {
  const isCategory = colouring.kind === 'category' && group < MOST_CATEGORIES;
  return isCategory ? seriesColour(group) : colour('other');
}
