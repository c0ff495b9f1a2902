// Small charts as inline SVG. Nothing is parsed: every element is made, every text is a text node.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44, RIGHT = 10, TOP = 8, BOTTOM = 20;
const COLOURS = 6;

export const colour = (i) => `c${i % COLOURS}`;

function make(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });

/**
 * Lines over time.
 *
 * series: [{name, points: [[seconds, value], ...]}]; marks: [{at, name, kind}], horizontal lines;
 * top: the scale reaches at least so far; cap: and at most so far. width: in CSS pixels, so that text keeps its size.
 */
export function lines(label, series, { marks = [], top = 1, cap = Infinity, width = 900, height = 200, step = false } = {}) {
  const all = series.flatMap((one) => one.points);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const times = all.map((point) => point[0]);
  const first = Math.min(...times), last = Math.max(...times);
  const most = Math.min(cap, Math.max(top, ...all.map((point) => point[1])) * 1.05);
  const span = Math.max(1, last - first);
  const x = (seconds) => LEFT + ((seconds - first) / span) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - (Math.min(value, most) / most) * (height - TOP - BOTTOM);

  for (const share of [0, 0.5, 1]) {
    const at = y(most * share);
    svg.append(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    const more = share === 1 && all.some((point) => point[1] > most) ? "≥ " : "";
    svg.append(make("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, more + figure(most * share)));
  }
  for (const mark of marks.filter((one) => one.at <= most)) {
    svg.append(make("line", { class: `mark ${mark.kind}`, x1: LEFT, x2: width - RIGHT, y1: y(mark.at), y2: y(mark.at) }));
    svg.append(make("text", { x: width - RIGHT, y: y(mark.at) - 3, "text-anchor": "end" }, mark.name));
  }
  if (all.length) {
    svg.append(make("text", { x: LEFT, y: height - 5 }, clock(first)));
    svg.append(make("text", { x: width - RIGHT, y: height - 5, "text-anchor": "end" }, clock(last)));
  }
  series.forEach((one, i) => {
    if (!one.points.length) return;
    const path = one.points
      .map(([seconds, value], j) => (j && step ? `H${x(seconds).toFixed(1)}V` : `${j ? "L" : "M"}${x(seconds).toFixed(1)},`) + y(value).toFixed(1))
      .join("");
    const line = make("path", { class: `line ${colour(i)}`, d: path });
    line.append(make("title", {}, one.name));
    const [seconds, value] = one.points.at(-1);
    const dot = make("path", { class: `dot ${colour(i)}`, d: `M${x(seconds).toFixed(1)},${y(value).toFixed(1)}h0` });
    svg.append(line, dot);
  });
  return svg;
}

export function figure(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)}k`;
  if (value >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
}
