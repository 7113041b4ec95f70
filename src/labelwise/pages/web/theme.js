// Light and dark, and the colours of plots under each.

const THEMES = ['system', 'light', 'dark'];

/** Okabe and Ito's colours without yellow, for light and, made lighter, for dark. */
const SERIES_COLOURS = {
  light: ['#0072b2', '#d55e00', '#007a5a', '#b5548c', '#2a8fc7', '#b87400', '#1c2430'],
  dark: ['#5aaee6', '#f0864a', '#3fc79f', '#e6a3ca', '#9bd3f5', '#f2b84b', '#e6eaf0'],
};

/** The colour map cividis, at equal steps. */
const CIVIDIS = [
  '#00224e', '#123570', '#3b496c', '#575d6d', '#707173', '#8a8678', '#a59c74', '#c3b369', '#e1cc55', '#fee838',
];

/** @type {Set<() => void>} */
const themeListeners = new Set();
let chosenTheme = 'system';

/** @returns {'light' | 'dark'} */
function currentTheme() {
  return document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light';
}

/** @param {string} name of a custom property of the style sheet */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** @param {number} number of a style */
function seriesColour(number) {
  const colours = SERIES_COLOURS[currentTheme()];
  return colours[number % colours.length];
}

/**
 * Cividis without the end that vanishes on the page's ground.
 * @returns {string[]}
 */
function scaleColours() {
  return currentTheme() === 'dark' ? CIVIDIS.slice(2) : CIVIDIS.slice(0, -1);
}

/** @returns {[number, string][]} */
function plotScale() {
  const colours = scaleColours();
  return colours.map((value, i) => [i / (colours.length - 1), value]);
}

/** @param {() => void} listener called after the theme has changed */
function whenThemeChanges(listener) {
  themeListeners.add(listener);
}

/** @param {() => void} listener */
function forgetTheme(listener) {
  themeListeners.delete(listener);
}

const darkSystem = matchMedia('(prefers-color-scheme: dark)');

function applyTheme() {
  const isDark = chosenTheme === 'dark' || (chosenTheme === 'system' && darkSystem.matches);
  const theme = isDark ? 'dark' : 'light';
  if (document.documentElement.dataset.theme === theme) return;
  document.documentElement.dataset.theme = theme;
  for (const listener of themeListeners) listener();
}

function makeThemeSwitch() {
  const buttons = THEMES.map((name) =>
    make('button', { type: 'button', 'aria-pressed': String(name === chosenTheme), click: () => choose(name) }, name),
  );
  /** @param {string} name */
  const choose = (name) => {
    chosenTheme = name;
    buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(THEMES[i] === name)));
    applyTheme();
  };
  darkSystem.addEventListener('change', applyTheme);
  byId('page-theme').append(...buttons);
  applyTheme();
}
