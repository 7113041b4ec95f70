// Numbers and texts as they are shown.

const SUPERSCRIPTS = '⁰¹²³⁴⁵⁶⁷⁸⁹';

/**
 * A number with so many significant digits; a dash where there is none.
 * @param {number | null | undefined} value
 * @param {number | null} [digits] as it is, if null
 * @returns {string}
 */
function formatNumber(value, digits = null) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  if (digits === null) return withMinus(groupDigits(String(value)));
  if (value === 0) return '0';
  const exponent = Number(value.toExponential(digits - 1).split('e')[1]);
  if (exponent < -4 || exponent > 6) return withMinus(asPower(value, digits));
  return withMinus(groupDigits(value.toFixed(Math.max(0, digits - 1 - exponent))));
}

/**
 * @param {number} value
 * @param {number} digits
 */
function asPower(value, digits) {
  const [factor, exponent] = value.toExponential(digits - 1).split('e');
  const raised = String(Math.abs(Number(exponent))).replace(/\d/g, (digit) => SUPERSCRIPTS[Number(digit)]);
  return `${factor}×10${Number(exponent) < 0 ? '⁻' : ''}${raised}`;
}

/** @param {string} text thin spaces between thousands, from five digits on */
function groupDigits(text) {
  const [whole, ...rest] = text.split('.');
  if (whole.includes('e') || whole.replace('-', '').length < 5) return text;
  return [whole.replace(/\B(?=(\d{3})+$)/g, '\u202f'), ...rest].join('.');
}

/** @param {string} text */
function withMinus(text) {
  return text.replace(/^-/, '−');
}

/**
 * A text of which Plotly, which reads some HTML, makes nothing but text.
 * @param {unknown} text
 * @param {number} [longest] in characters
 */
function plotText(text, longest = 200) {
  return shorten(visible(text), longest)
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;');
}

/**
 * @param {string} text
 * @param {number} longest
 */
function shorten(text, longest) {
  const letters = Array.from(text);
  return letters.length <= longest ? text : `${letters.slice(0, longest - 1).join('')}…`;
}

/**
 * The q-th quantiles of the numbers that are known.
 * @param {ArrayLike<number>} values
 * @param {number[]} fractions
 * @returns {number[]} empty if none is known
 */
function quantiles(values, fractions) {
  const known = Float64Array.from(values).filter(Number.isFinite).sort();
  if (known.length === 0) return [];
  return fractions.map((fraction) => known[Math.round(fraction * (known.length - 1))]);
}

/**
 * The ends of what is known; [0, 1] if nothing is.
 * @param {Iterable<ArrayLike<number>>} arrays
 * @returns {[number, number]}
 */
function extent(arrays) {
  let [low, high] = [Infinity, -Infinity];
  for (const values of arrays) {
    for (let i = 0; i < values.length; i += 1) {
      if (!Number.isFinite(values[i])) continue;
      low = Math.min(low, values[i]);
      high = Math.max(high, values[i]);
    }
  }
  return low <= high ? [low, high] : [0, 1];
}
