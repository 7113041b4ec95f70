// What the page carries: compressed libraries and the document.

const ARRAY_TYPES = {
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
  float64: Float64Array,
};

/** @param {string} id of the script element that holds it */
async function unpack(id) {
  const holder = byId(id);
  const packed = fromBase64(holder.textContent.trim());
  holder.remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).arrayBuffer();
}

/**
 * @param {string} coded
 * @returns {any}
 */
function fromBase64(coded) {
  const bytes = /** @type {any} */ (Uint8Array);
  if (typeof bytes.fromBase64 === 'function') return bytes.fromBase64(coded);
  const text = atob(coded);
  const decoded = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) decoded[i] = text.charCodeAt(i);
  return decoded;
}

/** @type {Map<string, Promise<void>>} */
const loading = new Map();

/**
 * Run a library; once, however often it is asked for.
 * @param {string} name of its npm package
 */
function loadLibrary(name) {
  const started = loading.get(name) ?? runLibrary(name);
  loading.set(name, started);
  return started;
}

/** @param {string} name */
async function runLibrary(name) {
  const script = document.createElement('script');
  script.textContent = new TextDecoder().decode(await unpack(`data-${name}`));
  document.head.append(script);
}

/**
 * The document, as `blob.py` laid it out.
 * @returns {Promise<ReportDocument>}
 */
async function unpackDocument() {
  const buffer = await unpack('data-document');
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = head.arrays.map((/** @type {any} */ entry) => readArray(buffer, 4 + length, entry));
  return restore(head.document, arrays);
}

/**
 * @param {ArrayBuffer} buffer
 * @param {number} start
 * @param {{dtype: keyof typeof ARRAY_TYPES, offset: number, length: number, shape: number[]}} entry
 */
function readArray(buffer, start, { dtype, offset, length, shape }) {
  const array = new ARRAY_TYPES[dtype](buffer, start + offset, length);
  return Object.assign(array, { shape });
}

/**
 * Put arrays and numbers that JSON cannot write where they belong.
 * @param {any} value
 * @param {any[]} arrays
 * @returns {any}
 */
function restore(value, arrays) {
  if (Array.isArray(value)) return value.map((found) => restore(found, arrays));
  if (value === null || typeof value !== 'object') return value;
  if ('array' in value && !('is' in value)) return arrays[value.array];
  if ('number' in value && !('is' in value)) return Number(value.number);
  return Object.fromEntries(Object.entries(value).map(([key, found]) => [key, restore(found, arrays)]));
}
