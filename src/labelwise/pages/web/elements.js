// Elements made of text and nothing else: no function here, or anywhere on the page, parses HTML.

/** Marks that change the direction of text, and control characters. */
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/**
 * A text as it may be shown: what cannot be seen is written out, so that no name looks like another.
 * @param {unknown} text
 * @returns {string}
 */
function visible(text) {
  return String(text).replace(UNSEEN, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/**
 * Make an element.
 * @param {string} tag name, and classes behind dots
 * @param {Object<string, any>} [settings] attributes; a function is a listener of the event of that name
 * @param {...(Node | string | null)} children texts become text nodes
 * @returns {any}
 */
function make(tag, settings = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(settings)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? '' : visible(value));
  }
  for (const child of children) {
    if (child !== null) element.append(typeof child === 'string' ? visible(child) : child);
  }
  return element;
}

/**
 * @param {string} id
 * @returns {any}
 */
function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element ${id}`);
  return found;
}

/** @param {string} text said by screen readers */
function announce(text) {
  /** @type {HTMLElement} */
  let region = document.getElementById('page-announcements') ?? make('div');
  if (region.id === '') {
    region = make('div.unseen', { id: 'page-announcements', role: 'status' });
    document.body.append(region);
  }
  region.textContent = visible(text);
}

let nextNumber = 0;

/**
 * An id that no other element has.
 * @param {string} prefix
 */
function newId(prefix) {
  nextNumber += 1;
  return `${prefix}-${nextNumber}`;
}

/**
 * A label and the control it names.
 * @param {string} text
 * @param {HTMLElement} control
 */
function labelled(text, control) {
  control.id = control.id || newId('control');
  return make('span.labelled', {}, make('label', { for: control.id }, text), control);
}

/**
 * A switch: a checkbox with its label.
 * @param {string} text
 * @param {boolean} isOn
 * @param {(isOn: boolean) => void} whenChanged
 */
function makeSwitch(text, isOn, whenChanged) {
  const box = make('input', { type: 'checkbox', id: newId('switch') });
  box.checked = isOn;
  box.addEventListener('change', () => whenChanged(box.checked));
  return make('span.switch', {}, box, make('label', { for: box.id }, text));
}
