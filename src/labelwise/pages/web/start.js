// Where the page begins.

/** @param {string} text of what cannot be shown, and what to do */
function showProblem(text) {
  const place = byId('page-problem');
  place.hidden = false;
  place.append(make('p', {}, text));
}

function missingFeatures() {
  if (typeof DecompressionStream !== 'function') {
    showProblem('This browser cannot unpack the data in this file. Open it with Chrome or Edge 80, Firefox 113, Safari 16.4 or later.');
    return true;
  }
  if (!hasWebGL) {
    showProblem('This browser has no WebGL, or it is switched off: structures cannot be shown in three dimensions, and maps are drawn more slowly.');
  }
  return false;
}

async function start() {
  makeThemeSwitch();
  if (missingFeatures()) return;
  const report = await unpackDocument();
  const context = makeContext(report);
  fillHeading(report);
  fillSections(report, context);
  fillFooter(report);
  markFilled();
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

start().catch((error) => {
  showProblem(`This page could not be shown: ${error instanceof Error ? error.message : error}`);
  throw error;
});
