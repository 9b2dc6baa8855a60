(() => {
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const root = document.documentElement;
const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const number = (x) => x.toLocaleString("en-US");
const digits = (x) => Number(x.toPrecision(6)).toString();

// -- state of the curves, shared by all charts

const hidden = new Set();  // groups
const options = { singles: false, bands: true, logx: false, logy: false, smooth: 0 };
const groupOfArm = [];
data.groups.forEach((group, g) => group.arms.forEach((arm) => { groupOfArm[arm] = g; }));
const armOfTrial = [];
(data.members || []).forEach((trials, arm) => trials.forEach((t) => { armOfTrial[t] = arm; }));

// Exponential moving average with its bias at the beginning removed, as in TensorBoard.
function smooth(values) {
  if (!options.smooth) return values;
  let sum = 0, weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = options.smooth * sum + (1 - options.smooth) * value;
    weight = options.smooth * weight + 1 - options.smooth;
    return sum / weight;
  });
}

// Lines become one trace with gaps between them.
function joinLines(lines, label) {
  const x = [], y = [], text = [];
  for (const line of lines) {
    const steps = data.steps[line.x], values = smooth(line.y);
    for (let i = 0; i < steps.length; i++) {
      x.push(steps[i]);
      y.push(values[i]);
      text.push(label(line, i, values[i]));
    }
    x.push(null); y.push(null); text.push("");
  }
  return { x, y, text };
}

const HOVER = { hovertemplate: "%{text}<extra></extra>" };

function meanLabel(line, i, value) {
  let error = "";
  if (line.low && line.low[i] !== null) {
    const half = (line.high[i] - line.low[i]) / 2;
    error = data.view.symmetric ? ` \u00b1 ${half.toPrecision(2)} (${data.view.bar})`
      : ` [${digits(line.low[i])}, ${digits(line.high[i])}] (${data.view.bar})`;
  }
  const mean = line.n > 1 ? `${data.view.statistic} ${digits(value)}${error}, n = ${line.n}` : digits(value);
  return value === null ? "" : `${data.arms[line.arm]}<br>step ${number(data.steps[line.x][i])}: ${mean}`;
}

function trialLabel(line, i, value) {
  if (value === null) return "";
  const name = data.trials[line.trial].replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const ended = line.ended ? `<br>${data.status[line.trial]}` : "";
  return `${name}<br>step ${number(data.steps[line.x][i])}: ${digits(value)}${ended}`;
}

function bandTrace(line, colour) {
  const steps = data.steps[line.x], upper = smooth(line.high), lower = smooth(line.low);
  return { x: steps.concat([...steps].reverse()), y: upper.concat(lower.reverse()), mode: "lines",
    fill: "toself", fillcolor: colour, opacity: 0.18, line: { width: 0 }, hoverinfo: "skip" };
}

function curveTraces(chart) {
  const traces = [];
  // Of groups by rank the best is drawn last, above the others.
  const isRanked = data.groups.some((group) => group.arms.length > 1);
  const order = data.groups.map((group, g) => [group, g]);
  if (isRanked) order.reverse();
  order.forEach(([group, g]) => {
    if (hidden.has(g)) return;
    const own = (line) => groupOfArm[line.arm] === g;
    const means = chart.means.filter(own), singles = chart.trials.filter(own);
    const points = (lines) => lines.every((line) => data.steps[line.x].length === 1);
    if (options.bands && group.arms.length === 1) {
      means.filter((line) => line.low).forEach((line) => traces.push(bandTrace(line, group.colour)));
    }
    if (options.singles) {
      const complete = singles.filter((line) => !line.ended);
      traces.push({ ...joinLines(complete, trialLabel), ...HOVER, mode: "lines", opacity: 0.55,
        line: { color: group.colour, width: 0.9 } });
    }
    const ended = singles.filter((line) => line.ended);
    if (ended.length) {
      traces.push({ ...joinLines(ended, trialLabel), ...HOVER,
        mode: points(ended) ? "markers" : "lines",
        line: { color: group.colour, width: 1, dash: "dash" }, marker: { color: group.colour } });
    }
    traces.push({ ...joinLines(means, meanLabel), ...HOVER, mode: points(means) ? "markers" : "lines",
      line: { color: group.colour, width: isRanked ? 1 : 2 }, opacity: isRanked ? 0.6 : 1,
      marker: { color: group.colour }, meta: "mean" });
  });
  return traces.filter((trace) => trace.x.length);
}

// -- drawing

function layout(xTitle, yTitle, more = {}) {
  const axis = { gridcolor: css("--grid"), zerolinecolor: css("--line"), linecolor: css("--line"),
    ticks: "outside", tickcolor: css("--line"), exponentformat: "e" };
  return { font: { family: css("--font"), size: 12, color: css("--muted") }, showlegend: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--text") },
    margin: { l: 64, r: 20, t: 10, b: 44 }, autosize: true,
    hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line"), align: "left",
      font: { color: css("--text"), family: css("--font") } },
    xaxis: { ...axis, title: { text: xTitle, standoff: 8 }, ...more.xaxis },
    yaxis: { ...axis, title: { text: yTitle, standoff: 6 }, nticks: 6, ...more.yaxis } };
}

// Only buttons that change the view: others of Plotly send or save data.
const CONFIG = { displaylogo: false, responsive: true,
  modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

// As on the logarithmic axes of figures: few plain labels, minor ticks without.
function plainNumber(x) {
  for (const [power, prefix] of [[1e6, "M"], [1e3, "k"]]) {
    if (x >= 10000 && x < 1e9 && x >= power) return `${digits(x / power)}${prefix}`;
  }
  if (x >= 1e-3 && x < 10000) return Number(x.toPrecision(6)).toLocaleString("en-US", { maximumFractionDigits: 9 });
  return x.toExponential().replace(/\.?0*e\+?/, "e");
}

function logAxis(values) {
  const known = values.filter((v) => v > 0);
  const low = Math.min(...known), high = Math.max(...known);
  if (!known.length) return { type: "log" };
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const ticksAt = (multiples, from, to) => {
    const out = [];
    for (let power = from; power <= to; power++) {
      multiples.forEach((m) => out.push(Number(`${m}e${power}`)));
    }
    return out;
  };
  const count = (multiples) => ticksAt(multiples, first, last).filter((v) => v >= low && v <= high).length;
  const all = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  if (count(all) < 2) return narrowLogAxis(low, high);
  const multiples = [all, [1, 2, 5], [1, 3]].find((m) => count(m) <= 6) || [1];
  const every = Math.max(1, Math.ceil((last - first) / 6));
  const ticks = ticksAt(multiples, first - 1, last + 1)
    .filter((v) => multiples.length > 1 || Math.round(Math.log10(v)) % every === 0);
  return { type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(plainNumber),
    minor: { ticks: "outside", ticklen: 3, dtick: "D1", tickcolor: css("--line") } };
}

function narrowLogAxis(low, high) {  // such as from 24 to 28
  const rough = (high - low || low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((m) => m * power >= rough) || 10);
  const ticks = [];
  for (let i = Math.floor(low / step); i <= Math.ceil(high / step); i++) ticks.push(i * step);
  const known = ticks.filter((v) => v > 0);
  return { type: "log", tickmode: "array", tickvals: known, ticktext: known.map(plainNumber) };
}

function rangeOf(lists) {  // [low, high] of the positive numbers
  let low = Infinity, high = 0;
  lists.forEach((list) => list.forEach((v) => {
    if (v > 0) { low = Math.min(low, v); high = Math.max(high, v); }
  }));
  return high ? [low, high] : [];
}

function drawCurves(figure) {
  const chart = data.charts[Number(figure.dataset.chart)];
  const lines = [...chart.means, ...chart.trials];
  const title = chart.unit || chart.name.slice(chart.name.indexOf(" ") + 1);
  Plotly.react(one(".plot", figure), curveTraces(chart), layout("training step", title, {
    xaxis: options.logx ? logAxis(rangeOf(lines.map((line) => data.steps[line.x]))) : { type: "linear" },
    yaxis: options.logy && chart.positive ? logAxis(rangeOf(lines.map((line) => line.y))) : { type: "linear" },
  }), CONFIG);
}

function drawSlice(figure) {
  const axis = data.axes[Number(figure.dataset.slice)], metric = one("#metric").value;
  const values = data.finals[metric], x = [], y = [], text = [], colour = [];
  const byValue = new Map();
  axis.values.forEach((value, t) => {
    const g = groupOfArm[armOfTrial[t]];
    if (values[t] === null || value === null || hidden.has(g)) return;
    x.push(value); y.push(values[t]);
    colour.push(data.groups[g].colour);
    text.push(data.trials[t].replace(/&/g, "&amp;").replace(/</g, "&lt;"));
    byValue.set(value, [...(byValue.get(value) || []), values[t]]);
  });
  const traces = [{ x, y, text, mode: "markers", marker: { color: colour, size: 7, opacity: 0.75 },
    hovertemplate: "%{text}<br>%{y:.6g} at %{x}<extra></extra>" }];
  if (byValue.size < x.length && byValue.size <= 40) traces.push(meanTrace(byValue));
  const type = { log: "log", linear: "linear", text: "category" }[axis.scale];
  Plotly.react(one(".plot", figure), traces, layout(axis.name, metricTitle(metric), {
    xaxis: { type, ...ticksOf(axis) } }), CONFIG);
}

// The values themselves are the ticks, where they are few.
function ticksOf(axis) {
  if (axis.scale === "text") {
    const names = [...new Set(axis.values)];
    const short = (name) => (name.length > 16 && !name.includes("&") ? `${name.slice(0, 15)}\u2026` : name);
    return names.length > 24 ? {} : { tickvals: names, ticktext: names.map(short) };
  }
  const values = [...new Set(axis.values)].sort((a, b) => a - b);
  if (axis.scale === "log" && (values.length > 6 || areNear(values.map(Math.log10)))) return logAxis(values);
  if (values.length > 8 || (axis.scale === "linear" && areNear(values))) return {};
  return { tickvals: values, ticktext: values.map(axis.scale === "log" ? plainNumber : digits) };
}

// Whether labels at sorted places would overlap in a small chart.
function areNear(places) {
  const span = places[places.length - 1] - places[0];
  return places.some((place, i) => i > 0 && place - places[i - 1] < span / 9);
}

function metricTitle(metric) {
  const unit = data.units[metric.slice(metric.indexOf(" ") + 1)];
  return typeof unit === "string" ? `${metric} (${unit})` : metric;
}

function meanTrace(byValue) {
  const x = [], y = [], error = [], text = [];
  for (const [value, numbers] of byValue) {
    const n = numbers.length, mean = numbers.reduce((a, b) => a + b, 0) / n;
    const variance = numbers.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1);
    x.push(value); y.push(mean); error.push(n > 1 ? Math.sqrt(variance / n) : 0);
    text.push(`mean ${digits(mean)}${n > 1 ? ` \u00b1 ${error[error.length - 1].toPrecision(2)} (s.e.)` : ""}, n = ${n}`);
  }
  return { x, y, text, ...HOVER, mode: "markers",
    marker: { symbol: "diamond-open", size: 12, color: css("--text"), line: { width: 2 } },
    error_y: { type: "data", array: error, color: css("--text"), thickness: 1.2, width: 4 } };
}

const drawn = new Set();
function draw(figure) {
  drawn.add(figure);
  (figure.dataset.chart !== undefined ? drawCurves : drawSlice)(figure);
}
const redraw = () => { drawn.forEach(draw); };
function drawAll() {
  loadPlotly();
  all(".chart").forEach(draw);
}
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
  }
}, { rootMargin: "250px" });

// Plotly is a second of work for a browser: it runs once the page can be read.
function loadPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = one("#plotly").textContent;
  document.head.append(script);
}
requestAnimationFrame(() => setTimeout(() => {
  loadPlotly();
  all(".chart").forEach((figure) => seen.observe(figure));
  root.dataset.ready = "true";
}));

// Paper is white: charts are drawn in the colours of the light theme.
let themeOfScreen;
window.addEventListener("beforeprint", () => {
  themeOfScreen = root.dataset.theme || "auto";
  root.dataset.theme = "light";
  drawAll();
});
window.addEventListener("afterprint", () => { setTheme(themeOfScreen); });

all(".enlarge").forEach((button) => button.addEventListener("click", () => {
  const figure = button.closest(".chart"), large = figure.classList.toggle("large");
  button.textContent = large ? "Reduce" : "Enlarge";
  button.setAttribute("aria-pressed", String(large));
  draw(figure);
  Plotly.Plots.resize(one(".plot", figure));
}));

// -- controls of the curves

for (const name of ["singles", "bands", "logx", "logy"]) {
  const box = one(`#${name}`);
  if (box) box.addEventListener("change", () => { options[name] = box.checked; redraw(); });
}
const slider = one("#smooth");
if (slider) slider.addEventListener("input", () => {
  options.smooth = Number(slider.value);
  one("#smooth-value").textContent = options.smooth ? slider.value : "off";
  redraw();
});
const chartFilter = one("#filter-charts");
if (chartFilter) chartFilter.addEventListener("input", () => {
  const word = chartFilter.value.toLowerCase();
  all("[data-chart]").forEach((figure) => {
    figure.hidden = !figure.dataset.name.toLowerCase().includes(word);
  });
});

const chips = all(".legend button");
function isolate(g, toggle) {
  const others = data.groups.map((_, i) => i).filter((i) => i !== g);
  const alone = !hidden.has(g) && others.every((i) => hidden.has(i));
  if (toggle) {
    hidden.has(g) ? hidden.delete(g) : hidden.add(g);
  } else if (alone) {
    hidden.clear();
  } else {
    hidden.delete(g);
    others.forEach((i) => hidden.add(i));
  }
  chips.forEach((chip, i) => chip.setAttribute("aria-pressed", String(!hidden.has(i))));
  redraw();
  drawParallel();
}
chips.forEach((chip, g) => chip.addEventListener("click", (event) => isolate(g, event.shiftKey)));

// -- parallel coordinates

const SVG = "http://www.w3.org/2000/svg";
function element(name, attributes, parent, text = "") {
  const out = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
  out.textContent = text;
  parent.append(out);
  return out;
}
const plain = (label) => {
  const box = document.createElement("textarea");
  box.innerHTML = label;  // entities of an escaped label, as text
  return box.value;
};
const brushes = new Map();  // axis -> [low, high] as fractions of its height

function fractions(axis) {  // of each trial, 0 at the bottom
  if (axis.scale === "text") {
    const names = [...new Set(axis.values)];
    return axis.values.map((v) => (names.length > 1 ? names.indexOf(v) / (names.length - 1) : 0.5));
  }
  const place = axis.scale === "log" ? Math.log10 : (v) => v;
  const known = axis.values.filter((v) => v !== null).map(place);
  const low = Math.min(...known), high = Math.max(...known);
  return axis.values.map((v) => (v === null ? null : high > low ? (place(v) - low) / (high - low) : 0.5));
}

function axisTicks(axis) {  // [fraction, label]
  if (axis.scale === "text" || new Set(axis.values).size <= 8) {
    const places = new Map(axis.values.map((v, t) => [v, axis.fractions[t]]));
    return [...places].filter(([v]) => v !== null).slice(0, 24)
      .map(([v, f]) => [f, axis.scale === "text" ? plain(v).slice(0, 18) : digits(v)]);
  }
  const known = axis.values.filter((v) => v !== null);
  const low = Math.min(...known), high = Math.max(...known);
  return [0, 0.25, 0.5, 0.75, 1].map((f) => {
    const value = axis.scale === "log" ? low * (high / low) ** f : low + f * (high - low);
    return [f, Number(value.toPrecision(3)).toString()];
  });
}

const HEIGHT = 340, TOP = 42, BOTTOM = 18;
const yOf = (f) => HEIGHT - BOTTOM - f * (HEIGHT - TOP - BOTTOM);
function drawParallel() {
  const box = one("#parallel");
  if (!box) return;
  const metric = one("#metric").value;
  const axes = [...data.axes, { name: metric, scale: "linear", values: data.finals[metric] }];
  axes.forEach((axis) => { axis.fractions = fractions(axis); });
  const width = Math.max(box.parentElement.clientWidth, 130 * axes.length);
  box.style.width = `${width}px`;
  box.replaceChildren();
  const svg = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "group",
    "aria-label": "Parallel coordinates" }, box);
  const xOf = (i) => 50 + (i * (width - 130)) / (axes.length - 1);
  const lines = [];
  data.trials.forEach((name, t) => {
    const final = axes[axes.length - 1].fractions[t];
    if (final === null || hidden.has(groupOfArm[armOfTrial[t]])) return;
    const points = axes.map((axis, i) => [xOf(i), yOf(axis.fractions[t] ?? 0)]);
    const line = element("path", { d: `M${points.map((p) => p.join(",")).join("L")}`,
      stroke: data.groups[groupOfArm[armOfTrial[t]]].colour, "data-trial": t }, svg);
    line.addEventListener("pointerenter", () => showTrial(line, axes, t));
    line.addEventListener("pointerleave", () => line.classList.remove("hover"));
    lines.push(line);
  });
  const select = () => {
    let inside = 0;
    for (const line of lines) {
      const t = Number(line.dataset.trial);
      const out = [...brushes].some(([i, [low, high]]) => {
        const f = i < axes.length ? axes[i].fractions[t] : null;
        return f !== null && (f < low || f > high);
      });
      line.classList.toggle("out", out);
      inside += !out;
    }
    one("#parallel-status").textContent = brushes.size
      ? `${inside} of ${lines.length} trials selected` : `${lines.length} trials`;
  };
  axes.forEach((axis, i) => drawAxis(svg, axis, i, xOf(i), select, i === axes.length - 1 ? width : 0));
  select();
}

function showTrial(line, axes, t) {
  line.classList.add("hover");
  const value = (axis) => (axis.scale === "text" ? plain(axis.values[t]) : axis.values[t] === null ? "" : digits(axis.values[t]));
  one("#parallel-status").textContent =
    `${data.trials[t]}: ${axes.map((axis) => `${plain(axis.name)} = ${value(axis)}`).join(", ")}`;
}

function drawAxis(svg, axis, i, x, select, width = 0) {
  const isLast = width > 0;
  const group = element("g", { class: "axis", tabindex: "0", role: "slider", "aria-label": plain(axis.name),
    "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0",
    "aria-valuetext": "all" }, svg);
  element("line", { x1: x, x2: x, y1: yOf(0), y2: yOf(1) }, group);
  const anchor = i === 0 ? { x: 4, "text-anchor": "start" }
    : { x: isLast ? width - 4 : x, "text-anchor": isLast ? "end" : "middle" };
  element("text", { y: i % 2 ? 28 : 14, class: "title", ...anchor }, group, plain(axis.name).slice(0, 34));
  for (const [f, label] of axisTicks(axis)) {
    element("text", { x: x + 6, y: yOf(f) + 4 }, group, label);
  }
  const brush = element("rect", { class: "brush", x: x - 7, width: 14, y: 0, height: 0 }, group);
  const hit = element("rect", { class: "hit", x: x - 14, width: 28, y: TOP - 10, height: HEIGHT - TOP }, group);
  const show = () => {
    const range = brushes.get(i);
    brush.setAttribute("y", range ? yOf(range[1]) : 0);
    brush.setAttribute("height", range ? Math.max(2, yOf(range[0]) - yOf(range[1])) : 0);
    group.setAttribute("aria-valuetext", range ? `${Math.round(100 * range[0])} to ${Math.round(100 * range[1])} %` : "all");
    select();
  };
  const set = (low, high) => { brushes.set(i, [Math.max(0, low), Math.min(1, high)]); show(); };
  const clear = () => { brushes.delete(i); show(); };
  const at = (event) => {
    const bounds = svg.getBoundingClientRect();
    const y = ((event.clientY - bounds.top) * HEIGHT) / bounds.height;
    return Math.min(1, Math.max(0, (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM)));
  };
  let from = null;
  hit.addEventListener("pointerdown", (event) => { from = at(event); hit.setPointerCapture(event.pointerId); });
  hit.addEventListener("pointermove", (event) => {
    if (from !== null && Math.abs(at(event) - from) > 0.02) set(Math.min(from, at(event)), Math.max(from, at(event)));
  });
  hit.addEventListener("pointerup", (event) => {
    if (from !== null && Math.abs(at(event) - from) <= 0.02) clear();
    from = null;
  });
  group.addEventListener("keydown", (event) => {
    const [low, high] = brushes.get(i) || [0, 1];
    if (event.key === "ArrowUp") set(Math.min(low + 0.1, high), high);
    else if (event.key === "ArrowDown") set(low, Math.max(high - 0.1, low));
    else if (event.key === "Escape") clear();
    else return;
    event.preventDefault();
  });
  if (brushes.has(i)) show();
}

const metricChoice = one("#metric");
if (metricChoice) {
  metricChoice.addEventListener("change", () => { brushes.clear(); redraw(); drawParallel(); });
  const box = one("#parallel");
  new ResizeObserver(() => { if (box.childElementCount) drawParallel(); }).observe(box.parentElement);
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    drawParallel();
  }, { rootMargin: "250px" }).observe(box);
  window.addEventListener("beforeprint", drawParallel);
}

// -- samples

function setUpSeries(box) {
  const series = data.series[Number(box.dataset.series)], isText = box.dataset.kind === "text";
  const steps = [...new Set(Object.values(series).flatMap((s) => Object.keys(s).map(Number)))].sort((a, b) => a - b);
  const trials = Object.keys(series).map(Number);
  const seeds = [...new Set(trials.map((t) => String(data.seeds[t] ?? "")))];
  const range = one(".step", box), choice = one("select", box);
  range.max = String(steps.length - 1);
  range.value = range.max;
  range.disabled = steps.length < 2;
  one(".controls", box).hidden = steps.length < 2 && seeds.length < 2;
  one(".seed", box).hidden = seeds.length < 2;
  const options = seeds.length > 1 ? [...seeds, "all"] : seeds;
  choice.append(...options.map((seed) => new Option(seed, seed)));
  const show = () => {
    const step = steps[Number(range.value)];
    one("output", box).textContent = step < 0 ? "" : `${number(step)}`;
    one(".cards", box).replaceChildren(...trials
      .filter((t) => choice.value === "all" || String(data.seeds[t] ?? "") === choice.value)
      .map((t) => makeCard(t, series[t][step], isText)));
  };
  range.addEventListener("input", show);
  choice.addEventListener("change", show);
  show();
}

function makeCard(trial, content, isText) {
  const card = document.createElement("figure"), caption = document.createElement("figcaption");
  const title = document.createElement("b"), arm = data.arms[armOfTrial[trial]];
  card.className = "card";
  if (arm !== undefined && data.arms.length > 1) {
    if (data.groups.length > 1) {
      const swatch = document.createElement("i");
      swatch.className = "swatch";
      swatch.style.background = data.groups[groupOfArm[armOfTrial[trial]]].colour;
      title.append(swatch);
    }
    title.append(plain(arm));
    caption.append(title);
  }
  caption.append(data.trials[trial]);
  const body = document.createElement(content === undefined ? "div" : isText ? "pre" : "img");
  if (content === undefined) {
    body.className = "absent";
    body.textContent = "no sample at this step";
  } else if (isText) {
    body.textContent = content;
    body.tabIndex = 0;
  } else {
    body.alt = `samples of ${data.trials[trial]}`;
    body.addEventListener("load", () => body.classList.toggle("small", body.naturalWidth < 200));
    body.src = content;
  }
  card.append(caption, body);
  return card;
}
all(".series").forEach(setUpSeries);

// -- tables

function sortTable(table, column, head) {
  const rising = head.getAttribute("aria-sort") !== "ascending";
  const key = (row) => {
    const text = row.cells[column].textContent.trim(), value = parseFloat(text.replace(/,/g, ""));
    return Number.isNaN(value) ? [1, text] : [0, value];
  };
  const compare = ([[ka, a]], [[kb, b]]) => ka - kb || (ka ? a.localeCompare(b) : a - b);
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]).sort(compare);
  if (!rising) rows.reverse();
  table.tBodies[0].append(...rows.map(([, row]) => row));
  all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
}
all("table.sortable").forEach((table) => all("thead th", table).forEach((head, column) => {
  const button = document.createElement("button");
  button.className = "sort";
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sortTable(table, column, head));
}));
const trialFilter = one("#filter-trials");
if (trialFilter) trialFilter.addEventListener("input", () => {
  const word = trialFilter.value.toLowerCase();
  all('[data-table="trials"] tbody tr').forEach((row) => {
    row.hidden = !row.textContent.toLowerCase().includes(word);
  });
});
const baseline = one("#baseline");
if (baseline) baseline.addEventListener("change", () => {
  all("[data-baseline]").forEach((body) => { body.hidden = body.dataset.baseline !== baseline.value; });
});

// -- page

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const box = document.createElement("textarea");
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
}
all("button.copy").forEach((button) => button.addEventListener("click", async () => {
  const label = button.textContent;
  await copyText(button.dataset.copy ?? one("code", button.parentElement).textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}));

const themes = ["auto", "light", "dark"], names = { auto: "automatic", light: "light", dark: "dark" };
const themeButton = one("#theme");
function setTheme(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
  themeButton.setAttribute("aria-label", `Colour theme: ${names[theme]}`);
  redraw();
}
themeButton.addEventListener("click", () => {
  setTheme(themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
one("#print").addEventListener("click", () => print());

const links = new Map(all(".contents a").map((a) => [a.hash.slice(1), a]));
const place = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((a, id) => a.classList.toggle("here", id === entry.target.id));
  }
}, { rootMargin: "-10% 0px -80% 0px" });
all("main section").forEach((section) => place.observe(section));
})();
