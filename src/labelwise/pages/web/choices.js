// Several panels, of which one is shown.

/**
 * @param {ChoicePanel} choice
 * @param {PageContext} context
 * @returns {Drawn}
 */
function makeChoice(choice, context) {
  const select = make('select', {}, ...choice.options.map(([name], i) => make('option', { value: String(i) }, name)));
  const place = make('div.place');
  /** @type {Drawn | null} */
  let drawn = null;
  const element = make('div.choice', { id: choice.name });
  /** @param {number} i */
  const show = (i) => {
    select.value = String(i);
    drawn?.remove();
    drawn = makePanel(choice.options[i][1], context);
    place.replaceChildren(drawn.element);
    for (const width of ['half', 'square']) element.classList.toggle(width, drawn.element.classList.contains(width));
    previous.disabled = i === 0;
    next.disabled = i === choice.options.length - 1;
  };
  /** @param {number} step */
  const step = (step) => show(Number(select.value) + step);
  const previous = make('button.small', { type: 'button', click: () => step(-1) }, 'Previous');
  const next = make('button.small', { type: 'button', click: () => step(1) }, 'Next');
  select.addEventListener('change', () => show(Number(select.value)));
  const label = shorten(choice.label.charAt(0).toUpperCase() + choice.label.slice(1), 40);
  const tools = make('div.tools.chooser', {}, labelled(label, select), previous, next);
  element.append(tools, place);
  show(Math.min(choice.first, choice.options.length - 1));
  return { element, remove: () => drawn?.remove() };
}
