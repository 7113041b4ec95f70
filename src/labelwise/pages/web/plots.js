// What every plot has in common: the frame on the page, the theme, when it is drawn.

const PLOTLY = 'plotly.js-strict-dist-min';
const GRAPHICS_MARGIN = '800px';
const REMOVED_BUTTONS = ['select2d', 'lasso2d', 'autoScale2d', 'hoverClosestCartesian', 'hoverCompareCartesian', 'toggleSpikelines'];

/** @type {Plot[]} */
const waiting = [];
let isDrawing = false;

/** What draws with WebGL, which large plots and structures need; empty where the browser has none. */
const renderer = (() => {
  const canvas = document.createElement('canvas');
  const context = /** @type {any} */ (canvas.getContext('webgl2') ?? canvas.getContext('webgl'));
  if (context === null) return '';
  const named = context.getExtension('WEBGL_debug_renderer_info');
  const name = String(context.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : context.RENDERER));
  context.getExtension('WEBGL_lose_context')?.loseContext();
  return name || 'unknown';
})();
const hasWebGL = renderer !== '';
/** Whether the processor draws, for which smooth edges are much work. */
const isSoftwareDrawn = /swiftshader|llvmpipe|softpipe|software|basic render/i.test(renderer);

/** A plot in its place on the page. Those that use WebGL exist only while they are nearly in view. */
class Plot {
  /**
   * @param {{name: string, title: string, height: number, usesGraphics?: boolean, build: () => PlotContent, whenDrawn?: (element: any) => void}} settings
   */
  constructor(settings) {
    this.settings = settings;
    this.isDrawn = false;
    this.isGone = false;
    this.element = make('div.drawing', { style: `height: ${settings.height}px`, 'data-plot': settings.name });
    this.redraw = () => void this.draw();
    whenThemeChanges(this.redraw);
    if (settings.usesGraphics) this.watch();
    else queuePlot(this);
  }

  watch() {
    this.watcher = new IntersectionObserver(([entry]) => {
      if (entry.isIntersecting && !this.isDrawn) queuePlot(this);
      if (!entry.isIntersecting && this.isDrawn) this.clear();
    }, { rootMargin: GRAPHICS_MARGIN });
    this.watcher.observe(this.element);
  }

  async show() {
    if (this.isDrawn || this.isGone) return;
    await loadLibrary(PLOTLY);
    if (!this.element.isConnected) return;
    this.isDrawn = true;
    const { traces, layout } = this.settings.build();
    await Plotly.newPlot(this.element, traces, completeLayout(layout, this.settings.height), this.config());
    this.element.dataset.drawn = 'true';
    this.settings.whenDrawn?.(this.element);
  }

  /** Draw once more, as the page is now. */
  async draw() {
    if (!this.isDrawn) return;
    const { traces, layout } = this.settings.build();
    await Plotly.react(this.element, traces, completeLayout(layout, this.settings.height), this.config());
  }

  config() {
    return {
      displaylogo: false,
      // Plotly offers to send a chart to a server of its own.
      showSendToCloud: false,
      plotlyServerURL: '',
      responsive: true,
      modeBarButtonsToRemove: REMOVED_BUTTONS,
      toImageButtonOptions: { filename: this.settings.name, scale: 2 },
    };
  }

  clear() {
    this.isDrawn = false;
    delete this.element.dataset.drawn;
    Plotly.purge(this.element);
  }

  /** Take the plot off the page for good. */
  remove() {
    this.isGone = true;
    this.watcher?.disconnect();
    forgetTheme(this.redraw);
    if (this.isDrawn) this.clear();
  }
}

/** @param {Plot} plot drawn after those that wait already, so that the page stays responsive */
function queuePlot(plot) {
  waiting.push(plot);
  delete document.documentElement.dataset.ready;
  if (!isDrawing) void drawWaiting();
}

async function drawWaiting() {
  isDrawing = true;
  await nextTask();
  for (let plot = waiting.shift(); plot !== undefined; plot = waiting.shift()) {
    await plot.show();
    await nextTask();
  }
  isDrawing = false;
  if (isFilled) markReady();
  for (const task of afterDrawing.splice(0)) task();
}

/** @type {(() => void)[]} what may wait until all plots are drawn */
const afterDrawing = [];

let isFilled = false;

/** Everything is on the page; what is in view begins to be drawn within two frames. */
function markFilled() {
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      isFilled = true;
      if (!isDrawing) markReady();
    }),
  );
}

/** All plots are drawn that are to be drawn now; tests wait for it, and measure when it was. */
function markReady() {
  document.documentElement.dataset.ready = 'true';
  performance.mark('ready');
}

function nextTask() {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/**
 * @param {any} layout
 * @param {number} height
 */
function completeLayout(layout, height) {
  const text = colour('text');
  const common = {
    height,
    autosize: true,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: text },
    margin: { l: 60, r: 16, t: 30, b: 48, pad: 2 },
    modebar: { bgcolor: 'rgba(0,0,0,0)', color: colour('quiet'), activecolor: colour('accent') },
    hoverlabel: { bgcolor: colour('card'), bordercolor: colour('line'), font: { color: text, size: 13 }, align: 'left' },
    legend: { orientation: 'h', x: 0, xanchor: 'left', yref: 'container', y: 0, yanchor: 'bottom', font: { size: 12.5 } },
    dragmode: 'zoom',
  };
  return { ...common, ...layout };
}

/**
 * An axis as all plots have it.
 * @param {string} label
 * @param {any} [settings]
 */
function makeAxis(label, settings = {}) {
  return {
    title: { text: plotText(label, 90), standoff: 8, font: { size: 13 } },
    automargin: true,
    gridcolor: colour('grid'),
    linecolor: colour('line'),
    zeroline: false,
    showline: true,
    ticks: 'outside',
    tickcolor: colour('line'),
    exponentformat: 'power',
    minexponent: 4,
    ...settings,
  };
}

/**
 * A panel of the page: heading, what it shows, what is said of it.
 * @param {{name: string, title: string, caption: string}} panel
 * @param {...(Node | null)} content
 * @returns {HTMLElement}
 */
function makeCard(panel, ...content) {
  const heading = make('h3', { id: `${panel.name}-title` }, panel.title);
  const caption = panel.caption ? make('p.caption', {}, panel.caption) : null;
  return make('article.card', { id: panel.name, 'aria-labelledby': heading.id }, heading, caption, ...content);
}

/**
 * A disclosure that shows a plot's data, made when it is first opened.
 * @param {() => TableContent} read
 */
function makeDataTable(read) {
  const details = make('details.data', {}, make('summary', {}, 'Data as table'));
  details.addEventListener('toggle', () => {
    if (details.open && details.children.length === 1) details.append(makeTable(read()));
  });
  return details;
}
