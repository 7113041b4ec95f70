// The types that the page's script speaks of; `document.py` says what the fields mean.

type Cell = string | number | null;
type Shaped<T> = T & { shape: number[] };

interface Fact { label: string; value: string; note: string }
interface StructureSet {
  names: string[];
  formulas: string[];
  starts: Int32Array;
  numbers: Uint8Array;
  positions: Int16Array;
  scales: Float32Array;
  cells: Float32Array;
  atom_values: Float32Array | null;
  atom_label: string;
  fixed: Uint8Array | null;
}
interface NumberColumn { is: 'NumberColumn'; name: string; values: Float32Array; unit: string }
interface CategoryColumn { is: 'CategoryColumn'; name: string; codes: Int32Array; categories: string[] }
interface PointNote { point: number; lines: [string, string][] }
interface MapPanel {
  is: 'PoolMap';
  name: string;
  title: string;
  x: Float32Array;
  y: Float32Array;
  roles: Uint8Array;
  x_label: string;
  y_label: string;
  files: string[];
  file: Int32Array;
  frame: Int32Array;
  structure: Int32Array;
  neighbour: Int32Array;
  columns: (NumberColumn | CategoryColumn)[];
  rounds: Int32Array | null;
  notes: PointNote[];
  colour_by: string | null;
  caption: string;
}
interface Axis { label: string; is_log: boolean }
interface Series {
  name: string;
  x: ArrayLike<number> | string[];
  y: Float32Array;
  low: Float32Array | null;
  high: Float32Array | null;
  style: number | null;
  structure: Int32Array | null;
}
interface ChartPanel {
  is: 'Chart';
  name: string;
  title: string;
  mark: 'lines' | 'steps' | 'points' | 'bars' | 'stacked';
  x: Axis;
  y: Axis;
  series: Series[];
  diagonal: boolean;
  caption: string;
  band_name: string;
}
interface HeatMapPanel {
  is: 'HeatMap';
  name: string;
  title: string;
  values: Float32Array;
  rows: string[];
  columns: string[];
  label: string;
  limits: [number, number] | null;
  caption: string;
}
interface TableColumn { name: string; digits: number | null }
interface TablePanel {
  is: 'Table';
  name: string;
  title: string;
  columns: TableColumn[];
  rows: Cell[][];
  points: number[];
  map_name: string;
  caption: string;
}
interface ChoicePanel {
  is: 'Choice';
  name: string;
  label: string;
  options: [string, ChartPanel | HeatMapPanel | TablePanel][];
  first: number;
}
type Panel = MapPanel | ChartPanel | HeatMapPanel | TablePanel | ChoicePanel;
interface Section { name: string; title: string; panels: Panel[]; text: string[] }
interface ReportDocument {
  kind: string;
  title: string;
  subtitle: string;
  facts: Fact[];
  sections: Section[];
  structures: StructureSet | null;
  notes: string[];
}

/** A panel on the page, and how to take it off again. */
interface Drawn { element: HTMLElement; remove: () => void }
interface PlotContent { traces: any[]; layout: any }
interface TableContent {
  title: string;
  columns: TableColumn[];
  rows: Cell[][];
  /** What a row's button does; null for a row without one. */
  open: ((row: number) => (() => void) | null) | null;
}
interface PageContext {
  structures: StructureSet | null;
  maps: Map<string, any>;
  openStructure: (place: number, lines: [string, string][]) => void;
  openPoint: (name: string, point: number) => void;
  findPoint: (place: number) => [string, number] | null;
}
interface SeriesSettings { style: number; words: string[] | null; usesGraphics: boolean; showsBands: boolean }
interface Structure {
  name: string;
  formula: string;
  symbols: string[];
  positions: Float64Array;
  cell: Float32Array | null;
  values: Float32Array | null;
  isFixed: Uint8Array | null;
}
interface ViewerOptions {
  showsLabels: boolean;
  isSpinning: boolean;
  coloursByValue: boolean;
  limits: [number, number];
  flattest: number;
}
interface ShownStructure { title: string; name: string; place: number }
interface ViewerPlace { viewer: any; caption: HTMLElement; absent: HTMLElement; element: HTMLElement }
interface Colouring {
  kind: 'role' | 'number' | 'category';
  label: string;
  groups: { name: string; count: number }[];
  groupOf: Uint8Array | null;
  values: Float32Array | null;
  limits: [number, number];
  unit: string;
}
interface Layer { role: number; group: number; points: Int32Array }
interface LegendSettings {
  roleCounts: number[];
  colouring: Colouring;
  hiddenRoles: Set<number>;
  hiddenGroups: Set<number>;
  whenChanged: () => void;
}

declare const Plotly: any;
declare const $3Dmol: any;
