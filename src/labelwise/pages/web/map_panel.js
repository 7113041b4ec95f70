// What is shown of one point beside the map.

const MOST_FOUND = 12;

/** The structure of a point, why it was chosen, and ways to get to others. */
class PointPanel {
  /** @param {MapView} view */
  constructor(view) {
    this.view = view;
    this.map = view.panel;
    this.notes = new Map(this.map.notes.map((note) => [note.point, note.lines]));
    this.structures = new StructureView(view.context.structures);
    this.heading = make('h4', { tabindex: '-1' }, 'No structure yet');
    this.role = make('p.role');
    this.lines = make('div');
    this.values = make('div.values', { hidden: true });
    this.hint = make('p.quiet', {}, 'Click a point of the map, or look for a structure by its name.');
    this.found = make('ul.found', { 'aria-label': 'Structures found' });
    this.search = make('input', { type: 'search', autocomplete: 'off', placeholder: 'file@frame', input: () => this.find() });
    this.previous = make('button.small', { type: 'button', click: () => view.step(-1) }, 'Previous');
    this.next = make('button.small', { type: 'button', click: () => view.step(1) }, 'Next');
    this.position = make('span.quiet');
    this.element = make(
      'div.beside',
      {},
      make('div.tools', {}, labelled('Go to structure', this.search)),
      this.found,
      make('div.tools.steps', {}, this.previous, this.next, this.position),
      this.heading,
      this.role,
      this.hint,
      this.structures.element,
      this.lines,
    );
    this.search.addEventListener('focus', () => this.find());
    this.element.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      if (event.key === 'Escape') this.found.replaceChildren();
    });
    this.updateSteps();
  }

  /** @param {number} point */
  show(point) {
    const { map, view } = this;
    this.hint.hidden = true;
    this.found.replaceChildren();
    const structure = map.structure[point];
    const set = view.context.structures;
    this.heading.textContent = visible(structure >= 0 && set !== null ? set.formulas[structure] : view.nameOf(point));
    const role = view.roles[point];
    this.role.replaceChildren(makeGlyph(role), make('span', {}, view.describeRole(point)), make('span.name.quiet', {}, view.nameOf(point)));
    this.structures.show(this.listStructures(point));
    this.fillLines(point);
    this.updateSteps();
  }

  /**
   * @param {number} point
   * @returns {ShownStructure[]}
   */
  listStructures(point) {
    const { map, view } = this;
    const own = { title: 'This structure', name: view.nameOf(point), place: map.structure[point] };
    const neighbour = map.neighbour[point];
    if (neighbour < 0) return [own];
    return [own, { title: 'Nearest labelled', name: view.nameOf(neighbour), place: map.structure[neighbour] }];
  }

  /** @param {number} point */
  fillLines(point) {
    const { map, view } = this;
    const notes = this.notes.get(point) ?? [];
    const isHere = map.structure[point] >= 0;
    const where = `frame ${map.frame[point]} of ${map.files[map.file[point]]}`;
    const own = isHere ? [] : [make('p.quiet', {}, `This structure is not in this file. It is ${where}.`)];
    const neighbour = map.neighbour[point];
    const button = neighbour < 0 ? null : make('button.small', { type: 'button', click: () => view.open(neighbour) }, 'Go to the nearest labelled structure');
    this.lines.replaceChildren(
      ...own,
      ...(notes.length > 0 ? [make('h5', {}, view.roles[point] === CHOSEN ? 'Why it was chosen' : 'Notes'), makeLines(notes)] : []),
      make('div.tools', {}, button),
    );
    this.values.hidden = false;
    this.values.replaceChildren(make('h5', {}, 'Values'), makeLines([['read from', where], ...view.valuesOf(point)]));
  }

  updateSteps() {
    const { view } = this;
    const stops = view.stops;
    const place = stops.indexOf(view.selected);
    this.previous.disabled = stops.length === 0 || place === 0;
    this.next.disabled = stops.length === 0 || place === stops.length - 1;
    const what = view.stopsAreChosen ? 'chosen' : 'labelled';
    this.position.textContent = place < 0 ? `${stops.length} ${what}` : `${place + 1} of ${stops.length} ${what}`;
  }

  find() {
    const wanted = visible(this.search.value).trim().toLowerCase();
    const points = wanted === '' ? this.view.stops.slice(0, MOST_FOUND) : this.view.search(wanted, MOST_FOUND);
    const items = points.map((point) => {
      const text = `${this.view.nameOf(point)} · ${this.view.describeRole(point)}`;
      return make('li', {}, make('button', { type: 'button', click: () => this.goTo(point) }, text));
    });
    this.found.replaceChildren(...items);
    announce(points.length === 0 ? 'No structure of this name' : `${points.length} structures`);
    if (points.length === 0) this.found.append(make('li.quiet', {}, 'No structure of this name.'));
  }

  /** @param {number} point */
  goTo(point) {
    this.view.open(point);
    this.heading.focus();
  }
}
