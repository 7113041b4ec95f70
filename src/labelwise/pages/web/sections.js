// The page around the panels: heading, sections, small print.

/**
 * @param {Panel} panel
 * @param {PageContext} context
 * @returns {Drawn}
 */
function makePanel(panel, context) {
  switch (panel.is) {
    case 'PoolMap':
      return makePoolMap(panel, context);
    case 'Chart':
      return makeChart(panel, context);
    case 'HeatMap':
      return makeHeatMap(panel);
    case 'Table':
      return makeTablePanel(panel, context);
    case 'Choice':
      return makeChoice(panel, context);
  }
}

/**
 * @param {TablePanel} panel
 * @param {PageContext} context
 * @returns {Drawn}
 */
function makeTablePanel(panel, context) {
  /** @type {(row: number) => (() => void) | null} */
  const open = (row) => {
    const point = panel.points[row] ?? -1;
    return point < 0 ? null : () => context.openPoint(panel.map_name, point);
  };
  const hasPoints = panel.points.some((point) => point >= 0);
  const table = makeTable({ title: panel.title, columns: panel.columns, rows: panel.rows, open: hasPoints ? open : null });
  const card = makeCard(panel, table);
  return { element: card, remove: () => {} };
}

/** @param {ReportDocument} report */
function fillHeading(report) {
  document.title = visible(report.title);
  const facts = report.facts.map((fact) =>
    make('div.fact', {}, make('dt', {}, fact.label), make('dd', {}, make('span.value', {}, fact.value), fact.note ? make('span.note', {}, fact.note) : null)),
  );
  byId('page-heading').append(
    make('p.kind', {}, report.kind),
    make('h1', {}, report.title),
    make('p.subtitle', {}, report.subtitle),
    facts.length > 0 ? make('dl.facts', {}, ...facts) : '',
  );
}

/**
 * @param {ReportDocument} report
 * @param {PageContext} context
 */
function fillSections(report, context) {
  for (const section of report.sections) {
    const heading = make('h2', { id: `${section.name}-heading` }, section.title);
    const panels = make('div.panels');
    const text = section.text.map((paragraph) => make('p.paragraph', {}, paragraph));
    byId('page-body').append(make('section', { id: section.name, 'aria-labelledby': heading.id }, heading, ...text, panels));
    byId('page-sections').append(make('a', { href: `#${section.name}` }, section.title));
    for (const panel of section.panels) panels.append(makePanel(panel, context).element);
    fillRows([...panels.children]);
  }
  markSection();
}

/**
 * Two narrow cards share a row; one that would be alone gets the whole of it.
 * @param {Element[]} cards
 */
function fillRows(cards) {
  let isSecond = false;
  cards.forEach((card, i) => {
    const next = cards[i + 1];
    const isNarrow = card.matches('.half, .square');
    if (card.matches('.half') && !isSecond && !next?.matches('.half, .square')) card.classList.add('alone');
    isSecond = isNarrow && !isSecond;
  });
}

/** The link of the section in view is marked. */
function markSection() {
  const links = new Map([...byId('page-sections').children].map((link) => [link.getAttribute('href').slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((found) => found.isIntersecting)) {
      for (const link of links.values()) link.removeAttribute('aria-current');
      links.get(entry.target.id)?.setAttribute('aria-current', 'true');
    }
  }, { rootMargin: '-20% 0px -70% 0px' });
  for (const section of document.querySelectorAll('section[id]')) watcher.observe(section);
}

/** @param {ReportDocument} report */
function fillFooter(report) {
  const notes = report.notes.map((note) => make('li', {}, note));
  const licences = make('details', {}, make('summary', {}, 'Licences of Plotly.js and 3Dmol.js, which this file carries'));
  licences.addEventListener('toggle', async () => {
    if (licences.children.length > 1) return;
    const text = make('pre', { tabindex: '0', 'aria-label': 'Licences' });
    licences.append(text);
    text.textContent = new TextDecoder().decode(await unpack('data-licences'));
  });
  byId('page-footer').append(
    notes.length > 0 ? make('ul', {}, ...notes) : '',
    make('p', {}, 'Written by Labelwise. This file holds everything it shows and connects to nothing.'),
    licences,
  );
}
