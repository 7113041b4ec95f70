// Tables that sort, filter, turn pages and can be copied.

const ROWS_A_PAGE = 100;
const ROWS_WITHOUT_FILTER = 15;
const SHORT = 28; // characters that are kept on a line

/**
 * A table with its tools.
 * @param {TableContent} content
 * @returns {HTMLElement}
 */
function makeTable(content) {
  return new TableView(content).element;
}

class TableView {
  /** @param {TableContent} content */
  constructor(content) {
    this.content = content;
    this.order = content.rows.map((_, i) => i);
    this.shown = this.order;
    this.sorted = { column: -1, isDescending: false };
    this.page = 0;
    this.isNumeric = content.columns.map((_, k) => isNumericColumn(content.rows, k));
    this.heads = content.columns.map((column, k) => this.makeHead(column, k));
    this.body = make('tbody');
    this.status = make('span.quiet', { role: 'status' });
    this.pager = make('span.pager', { hidden: true });
    this.element = make('div.table', {}, this.makeTools(), this.makeFrame());
    this.fill();
  }

  makeTools() {
    const tools = make('div.tools', {}, this.pager, this.status);
    if (this.content.rows.length > ROWS_WITHOUT_FILTER) {
      const filter = make('input', { type: 'search', input: () => this.filter(filter.value) });
      tools.prepend(labelled('Filter rows', filter));
    }
    tools.append(make('button.small', { type: 'button', click: () => this.copy() }, 'Copy as CSV'));
    return tools;
  }

  makeFrame() {
    const action = this.content.open ? [make('th.action', { scope: 'col' }, make('span.unseen', {}, 'Structure'))] : [];
    return make(
      'div.scroll',
      { tabindex: '0', role: 'region', 'aria-label': this.content.title },
      make(
        'table',
        {},
        make('caption.unseen', {}, this.content.title),
        make('thead', {}, make('tr', {}, ...action, ...this.heads)),
        this.body,
      ),
    );
  }

  /**
   * @param {TableColumn} column
   * @param {number} k
   */
  makeHead(column, k) {
    const button = make('button.sort', { type: 'button', click: () => this.sort(k) }, column.name);
    return make(`th${this.isNumeric[k] ? '.number' : ''}`, { scope: 'col', 'aria-sort': 'none' }, button);
  }

  /** @param {number} k numbers start with the smallest, words with A, what is missing comes last */
  sort(k) {
    const isDescending = this.sorted.column === k && !this.sorted.isDescending;
    this.sorted = { column: k, isDescending };
    const rows = this.content.rows;
    const sign = isDescending ? -1 : 1;
    this.order.sort((a, b) => compareCells(rows[a][k], rows[b][k], sign) || a - b);
    this.heads.forEach((head, i) => {
      const direction = isDescending ? 'descending' : 'ascending';
      head.setAttribute('aria-sort', i === k ? direction : 'none');
    });
    this.shown = this.shown.length === this.order.length ? this.order : this.order.filter((i) => this.passes(i));
    this.page = 0;
    this.fill();
  }

  wanted = '';

  /** @param {number} row */
  passes(row) {
    return this.content.rows[row].some((cell, k) => this.textOf(cell, k).toLowerCase().includes(this.wanted));
  }

  /** @param {string} text */
  filter(text) {
    this.wanted = text.trim().toLowerCase();
    this.shown = this.wanted === '' ? this.order : this.order.filter((i) => this.passes(i));
    this.page = 0;
    this.fill();
  }

  /**
   * @param {Cell} cell
   * @param {number} k
   */
  textOf(cell, k) {
    if (cell === null) return '–';
    return typeof cell === 'number' ? formatNumber(cell, this.content.columns[k].digits) : visible(cell);
  }

  fill() {
    const start = this.page * ROWS_A_PAGE;
    this.body.replaceChildren(...this.shown.slice(start, start + ROWS_A_PAGE).map((i) => this.makeRow(i)));
    const total = this.content.rows.length;
    const count = this.shown.length === total ? `${total}` : `${this.shown.length} of ${total}`;
    this.status.textContent = `${count} row${total === 1 ? '' : 's'}`;
    this.fillPager();
  }

  fillPager() {
    const pages = Math.ceil(this.shown.length / ROWS_A_PAGE);
    this.pager.hidden = pages < 2;
    /** @type {(step: number, text: string) => HTMLElement} */
    const button = (step, text) => {
      const disabled = this.page + step < 0 || this.page + step >= pages;
      return make('button.small', { type: 'button', click: () => this.turn(step), disabled }, text);
    };
    this.pager.replaceChildren(button(-1, 'Previous'), make('span', {}, `page ${this.page + 1} of ${pages}`), button(1, 'Next'));
  }

  /** @param {number} step */
  turn(step) {
    this.page += step;
    this.fill();
    const buttons = this.pager.querySelectorAll('button');
    const wanted = buttons[step < 0 ? 0 : 1];
    (wanted.disabled ? buttons[step < 0 ? 1 : 0] : wanted).focus();
  }

  /** @param {number} i */
  makeRow(i) {
    const row = this.content.rows[i];
    const cells = row.map((cell, k) => this.makeCell(this.textOf(cell, k), k));
    const open = this.content.open;
    if (!open) return make('tr', {}, ...cells);
    const show = open(i);
    const name = `Show ${this.textOf(row[0], 0)}`;
    const button = show ? make('button.small', { type: 'button', click: show, 'aria-label': name }, 'Show') : null;
    return make('tr', {}, make('td', {}, button), ...cells);
  }

  /**
   * @param {string} text words too long for a column may be broken anywhere
   * @param {number} k
   */
  makeCell(text, k) {
    const length = text.length <= SHORT ? '.short' : /\S{28}/.test(text) ? '.long' : '';
    const kind = this.isNumeric[k] ? '.number' : length;
    return make(`td${kind}`, {}, text);
  }

  async copy() {
    const lines = [this.content.columns.map((column) => column.name), ...this.shown.map((i) => this.content.rows[i])];
    const isDone = await copyText(lines.map((line) => line.map(asCsv).join(',')).join('\r\n'));
    this.status.textContent = isDone ? 'Copied.' : 'The browser does not let this page copy.';
  }
}

/**
 * @param {Cell[][]} rows
 * @param {number} k
 */
function isNumericColumn(rows, k) {
  return rows.some((row) => typeof row[k] === 'number') && rows.every((row) => typeof row[k] !== 'string');
}

/**
 * @param {Cell} a
 * @param {Cell} b
 * @param {number} sign
 */
function compareCells(a, b, sign) {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  if (typeof a === 'number' && typeof b === 'number') return sign * (a - b || 0);
  if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
  return sign * String(a).localeCompare(String(b), 'en', { numeric: true });
}

/** @param {Cell} cell as a spreadsheet reads it without taking a text for a formula */
function asCsv(cell) {
  if (cell === null) return '';
  if (typeof cell === 'number') return String(cell);
  const text = /^[=@\t]/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** @param {string} text */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make('textarea.unseen', { 'aria-label': 'Text to copy' });
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand('copy');
    area.remove();
    return isDone;
  }
}
