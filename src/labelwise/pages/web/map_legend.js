// What the marks and colours of a map mean, as switches that show and hide them.

const GLYPHS = ['M2 2 L10 10 M10 2 L2 10', 'M6 2.5 A3.5 3.5 0 1 0 6.01 2.5 Z', 'M6 1 L11 10.5 L1 10.5 Z', 'M6 0.5 L11.5 6 L6 11.5 L0.5 6 Z', 'M6 0.3 L7.5 4.4 L11.8 4.5 L8.4 7.2 L9.6 11.4 L6 8.9 L2.4 11.4 L3.6 7.2 L0.2 4.5 L4.5 4.4 Z'];

/**
 * The drawing of a role's mark, in its colour.
 * @param {number} role
 */
function makeGlyph(role) {
  const space = 'http://www.w3.org/2000/svg';
  const drawing = document.createElementNS(space, 'svg');
  drawing.setAttribute('viewBox', '0 0 12 12');
  drawing.setAttribute('aria-hidden', 'true');
  drawing.classList.add('glyph');
  const path = document.createElementNS(space, 'path');
  path.setAttribute('d', GLYPHS[role]);
  path.style.fill = role === SCREENED ? 'none' : `var(--${ROLE_STYLES[role].colour})`;
  path.style.stroke = role === SCREENED ? 'var(--other)' : 'none';
  drawing.append(path);
  return drawing;
}

/**
 * @param {LegendSettings} settings
 * @returns {HTMLElement[]}
 */
function makeLegend({ roleCounts, colouring, hiddenRoles, hiddenGroups, whenChanged }) {
  const roles = ROLES.map((name, role) => ({ name, role })).reverse().filter(({ role }) => roleCounts[role] > 0);
  const marks = roles.map(({ name, role }) => makeLegendItem(makeGlyph(role), name, roleCounts[role], hiddenRoles, role, whenChanged));
  const rows = [make('div.key', { role: 'group', 'aria-label': 'Marks' }, ...marks)];
  if (colouring.kind === 'role') return rows;
  const groups = colouring.groups.map((group, i) => ({ ...group, i })).filter(({ count, i }) => count > 0 && !(colouring.kind === 'number' && i === 0));
  const swatches = groups.map(({ name, count, i }) => makeLegendItem(makeSwatch(colouring, i), name, count, hiddenGroups, i, whenChanged));
  const unit = colouring.unit ? `${colouring.label} / ${colouring.unit}` : colouring.label;
  const scale = colouring.kind === 'number' ? [make('span.ramp', {}, ...makeScale(unit, colouring.limits, ['≤ ', '≥ ']))] : [];
  return [...rows, make('div.key', { role: 'group', 'aria-label': `Colours: ${colouring.label}` }, ...scale, ...swatches)];
}

/**
 * @param {Colouring} colouring
 * @param {number} group
 */
function makeSwatch(colouring, group) {
  const swatch = make('span.swatch', { 'aria-hidden': 'true' });
  swatch.style.background = groupColour(colouring, group);
  return swatch;
}

/**
 * @param {Element} mark
 * @param {string} name
 * @param {number} count
 * @param {Set<number>} hidden
 * @param {number} key
 * @param {() => void} whenChanged
 */
function makeLegendItem(mark, name, count, hidden, key, whenChanged) {
  const toggle = () => {
    if (!hidden.delete(key)) hidden.add(key);
    button.setAttribute('aria-pressed', String(!hidden.has(key)));
    whenChanged();
  };
  const button = make(
    'button.key-item',
    { type: 'button', 'aria-pressed': String(!hidden.has(key)), title: 'Show or hide', click: toggle },
    mark,
    make('span.name', {}, shorten(name, 40)),
    make('span.count', {}, formatNumber(count)),
  );
  return button;
}
