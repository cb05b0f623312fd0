// The page: what a reader does changes the state, the graph and the forecast follow, and all of it is drawn anew.
// Everything stands in the HTML already; here it is found by its data-live name and brought up to date.

import { adjacency, distanceKm, nearestPairs, operator, pairKey, steps } from "./graph.js";
import { anomaly, inputs, loadNetwork, persistence, run, speed } from "./model.js";

const HOPS = 2; // graph convolutions in the network: how many edges a change can travel
const STEP_KM = 5;
const VIEWS = {
  tomorrow: "Tomorrow’s mean wind",
  change: "What you have changed: tomorrow’s forecast minus the untouched one",
  persistence: "Tomorrow’s forecast minus persistence",
  today: "Today’s mean wind",
};
const folder = new URL("./", import.meta.url);
const app = document.querySelector("[data-live=app]");
const at = (name) => app.querySelector(`[data-live="${name}"]`);
const SVG = "http://www.w3.org/2000/svg";

let data; // what the package worked out when the book was built
let state; // what the reader has made of it
let shown; // what follows from the state: graph, operator, forecast
let network = null;
let busy = false;
let stale = false;

// ------------------------------------------------------------------ state

const daysOf = (key) => data.days.find((one) => one.key === key);
const indexOf = (code) => data.stations.findIndex((one) => one.code === code);

function untouched(key, chosen) {
  return {
    days: key,
    wind: daysOf(key).wind.map((row) => [...row]),
    places: data.stations.map(({ lat, lon }) => ({ lat, lon })),
    reports: data.stations.map(() => true),
    cut: new Set(),
    chosen,
    view: "tomorrow",
  };
}

// A plan such as the experiments on the page are: what is changed, in words of data.
function perform(plan) {
  state = untouched(plan.days, indexOf(plan.select));
  state.view = plan.view;
  for (const [code, [lat, lon]] of Object.entries(plan.move ?? {})) state.places[indexOf(code)] = { lat, lon };
  for (const [code, wind] of Object.entries(plan.today ?? {})) state.wind.at(-1)[indexOf(code)] = wind;
  for (const code of plan.silent ?? []) state.reports[indexOf(code)] = false;
  const alone = plan.isolate === "all" ? data.stations.map((one) => one.code) : (plan.isolate ?? []);
  for (const code of alone) isolate(indexOf(code));
}

function isolate(i) {
  data.stations.forEach((_, j) => j !== i && state.cut.add(pairKey(i, j)));
}

function isTouched() {
  const days = daysOf(state.days);
  return (
    state.cut.size > 0 ||
    state.reports.includes(false) ||
    state.places.some((_, i) => isMoved(i)) ||
    state.wind.some((row, d) => row.some((wind, i) => wind !== days.wind[d][i]))
  );
}

function isMoved(i) {
  return state.places[i].lat !== data.stations[i].lat || state.places[i].lon !== data.stations[i].lon;
}

// The graph and all that needs no network; the forecast of untouched days is known from the build.
function follow() {
  const days = daysOf(state.days);
  const pairs = nearestPairs(state.places, data.neighbours);
  const weights = adjacency(state.places, pairs, data.lengthScale, state.cut);
  const today = state.wind.at(-1);
  shown = {
    days,
    pairs,
    operator: operator(weights),
    steps: steps(weights, state.chosen, HOPS),
    forecast: isTouched() ? null : days.forecast,
    persistence: today.map((wind, i) =>
      state.reports[i] ? persistence(wind, days.season.at(-2)[i], days.season.at(-1)[i]) : null,
    ),
    today: today.map((wind, i) => (state.reports[i] ? wind : null)),
  };
}

async function update() {
  follow();
  if (network) await forecast();
  else draw();
}

// One forecast at a time; what changed meanwhile is forecast right after.
async function forecast() {
  stale = true;
  if (busy) return;
  busy = true;
  try {
    while (stale) {
      stale = false;
      const now = shown;
      const z = await answer(now.days, now.operator);
      now.forecast = z.map((value, i) => speed(value, now.days.season.at(-1)[i], data.stations[i].scale));
    }
  } catch (error) {
    network = null;
    say(`The network has stopped (${error.message}). The graph goes on following you; forecasts do not.`, true);
  }
  busy = false;
  draw();
}

function answer(days, rows) {
  const scales = data.stations.map((one) => one.scale);
  return run(network, inputs(state.wind, days.season, scales, state.reports), rows);
}

const minus = (values, others) => values.map((value, i) => (others[i] === null ? null : value - others[i]));

// The numbers on the map, null where there is none.
function valuesOf(view) {
  if (view === "today") return shown.today;
  if (!shown.forecast) return data.stations.map(() => null);
  if (view === "change") return minus(shown.forecast, shown.days.forecast);
  if (view === "persistence") return minus(shown.forecast, shown.persistence);
  return shown.forecast;
}

// ------------------------------------------------------------------ drawing

const mercator = (lat) => (Math.asinh(Math.tan((lat * Math.PI) / 180)) * 180) / Math.PI;
const unmercator = (y) => (Math.atan(Math.sinh((y * Math.PI) / 180)) * 180) / Math.PI;

function toMap({ lat, lon }) {
  const { west, east, north, width } = data.map;
  const units = width / (east - west);
  return [(lon - west) * units, (mercator(north) - mercator(lat)) * units];
}

// The place of a point of the map, kept inside its edges.
function fromMap(x, y) {
  const { west, east, north, width, height } = data.map;
  const units = width / (east - west);
  const inside = (value, end) => Math.min(Math.max(value, 16), end - 16);
  const lat = unmercator(mercator(north) - inside(y, height) / units);
  return { lat: round(lat, 4), lon: round(west + inside(x, width) / units, 4) };
}

const round = (value, digits) => Number(value.toFixed(digits));

function text(value, digits = 1, sign = "") {
  if (value === null) return "–";
  const plain = value.toFixed(digits);
  if (Number(plain) === 0) return plain.replace("-", "");
  return (sign && value > 0 ? sign : "") + plain.replace("-", "−");
}

function colour(value, { palette, low, high }) {
  if (value === null) return ["var(--live-none)", "var(--live-ink)"];
  const colours = data.palettes[palette];
  const share = Math.min(Math.max((value - low) / (high - low), 0), 1);
  const fill = colours[Math.round(share * (colours.length - 1))];
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(fill.slice(start, start + 2), 16));
  return [fill, 0.299 * red + 0.587 * green + 0.114 * blue < 140 ? "#fff" : "#111"];
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const svg = (tag, attributes) => set(document.createElementNS(SVG, tag), attributes);

function html(tag, attributes = {}, ...content) {
  const element = set(document.createElement(tag), attributes);
  element.append(...content);
  return element;
}

function draw() {
  drawEdges();
  drawStations();
  drawLegend();
  drawPanel();
  drawRow();
  drawCards();
  drawTable();
  drawEdgeList();
  announce();
}

function drawEdges() {
  const places = state.places.map(toMap);
  at("edges").replaceChildren(
    ...shown.pairs.map(([i, j]) => {
      const isCut = state.cut.has(pairKey(i, j));
      const own = i === state.chosen || j === state.chosen;
      const group = svg("g", { class: `live-edge${isCut ? " is-cut" : ""}${own ? " is-own" : ""}` });
      group.dataset.pair = pairKey(i, j);
      const [[x1, y1], [x2, y2]] = [places[i], places[j]];
      const ends = { x1, y1, x2, y2 };
      group.append(svg("line", { class: "live-grip", ...ends }));
      group.append(svg("line", { class: "live-wire", ...ends, "stroke-width": 1 + 9 * shown.operator[i][j] }));
      if (isCut) {
        const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
        group.append(svg("path", { class: "live-cross", d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` }));
      }
      return group;
    }),
  );
  at("ghosts").replaceChildren(
    ...data.stations.flatMap((home, i) => {
      if (!isMoved(i)) return [];
      const [[cx, cy], [x, y]] = [toMap(home), places[i]];
      return [
        svg("line", { class: "live-way", x1: cx, y1: cy, x2: x, y2: y }),
        svg("circle", { class: "live-ghost", cx, cy, r: 8 }),
      ];
    }),
  );
}

function drawStations() {
  const view = data.views[state.view];
  const values = valuesOf(state.view);
  nodes().forEach((node, i) => {
    const [x, y] = toMap(state.places[i]);
    const [fill, ink] = colour(values[i], view);
    const hop = shown.steps[i];
    node.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    node.setAttribute("aria-pressed", i === state.chosen);
    node.classList.toggle("is-chosen", i === state.chosen);
    node.classList.toggle("is-near", hop === 1);
    node.classList.toggle("is-second", hop === 2);
    node.classList.toggle("is-silent", !state.reports[i]);
    node.querySelector(".live-dot").setAttribute("fill", fill);
    const number = node.querySelector(".live-number");
    number.setAttribute("fill", ink);
    number.textContent = text(values[i], view.digits, view.sign);
    node.setAttribute("aria-label", `${data.stations[i].name} ${number.textContent} metres a second`);
    number.classList.toggle("is-long", number.textContent.length > 4);
  });
}

const nodes = () => [...at("nodes").children];

function drawLegend() {
  const { palette, low, high, sign } = data.views[state.view];
  const day = state.view === "today" ? shown.days.dates.at(-2) : shown.days.dates.at(-1);
  at("shown").textContent = `${VIEWS[state.view]}, ${longDate(day)}`;
  const colours = data.palettes[palette].filter((_, i) => i % 4 === 0);
  at("legend").querySelector(".live-bar").style.background = `linear-gradient(90deg, ${colours.join(",")})`;
  const ends = [text(low, 0), `${text((low + high) / 2, 0)} m/s`, `${text(high, 0, sign)} or more`];
  if (sign) ends[0] += " or less";
  at("legend").querySelectorAll(".live-ticks span").forEach((tick, i) => (tick.textContent = ends[i]));
  for (const input of app.querySelectorAll("[name=live-view]")) input.checked = input.value === state.view;
}

const asDate = (iso, options) =>
  new Intl.DateTimeFormat("en-IE", { timeZone: "UTC", ...options }).format(new Date(`${iso}T00:00Z`));
const longDate = (iso) => asDate(iso, { day: "numeric", month: "long", year: "numeric" });
const shortDate = (iso) => asDate(iso, { weekday: "short", day: "numeric", month: "short" }).replace(",", "");

function drawPanel() {
  const i = state.chosen;
  const { lat, lon } = state.places[i];
  at("days").value = state.days;
  at("story").replaceChildren(html("b", {}, `${longDate(shown.days.dates.at(-2))}.`), ` ${shown.days.story}`);
  at("station").value = i;
  at("place").textContent = `${lat.toFixed(2)}° N, ${Math.abs(lon).toFixed(2)}° ${lon < 0 ? "W" : "E"}`;
  at("reports").checked = state.reports[i];
  at("home").disabled = !isMoved(i);
  at("reset").disabled = !isTouched();
  at("cut-off").textContent = ownPairs(i).some(isWhole) ? "Cut all its edges" : "Restore its edges";
  at("inputs").querySelectorAll(".live-slide").forEach((slide, d) => {
    const input = slide.querySelector("input");
    slide.querySelector("[data-live=date]").textContent = shortDate(shown.days.dates[d]);
    if (Number(input.value) !== round(state.wind[d][i], 1)) input.value = state.wind[d][i];
    input.disabled = !state.reports[i];
    const wind = `${text(state.wind[d][i])} m/s`;
    input.setAttribute("aria-valuetext", wind);
    slide.querySelector("output").textContent = wind;
  });
  at("said").textContent = summary();
}

const ownPairs = (i) => shown.pairs.filter((pair) => pair.includes(i));
const isWhole = ([i, j]) => !state.cut.has(pairKey(i, j));

function list(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

// What the chosen station's forecast is, beside the others, and whom it hears.
function summary() {
  const i = state.chosen;
  const { name } = data.stations[i];
  const named = (step) => data.stations.filter((_, j) => shown.steps[j] === step).map((one) => one.name);
  const parts = [];
  if (shown.forecast) {
    const change = shown.forecast[i] - shown.days.forecast[i];
    parts.push(`${name} tomorrow: ${text(shown.forecast[i])} m/s.`);
    if (isTouched()) parts.push(`Untouched it was ${text(shown.days.forecast[i])}: a change of ${text(change, 2, "+")}.`);
    parts.push(`Persistence says ${text(shown.persistence[i])}; ${text(shown.days.observed[i])} came.`);
  } else {
    parts.push(`${name}: the forecast follows as soon as the network runs.`);
  }
  if (!state.reports[i]) parts.push("It does not report: only its neighbours know of its weather.");
  const [near, second] = [named(1), named(2)];
  if (!near.length) parts.push("It hears nobody but itself.");
  else if (!second.length) parts.push(`It hears ${list(near)}, and nobody further.`);
  else parts.push(`It hears ${list(near)}, and through them ${list(second)}.`);
  if (Math.max(...state.wind.flat()) > data.windiest) {
    parts.push(`Above ${data.windiest} m/s no day of the training years is left: the network guesses.`);
  }
  return parts.join(" ");
}

function drawRow() {
  const i = state.chosen;
  const row = shown.operator[i];
  const { season } = shown.days;
  const x = data.stations.map((one, j) =>
    state.reports[j] ? anomaly(state.wind.at(-1)[j], season.at(-2)[j], one.scale) : 0,
  );
  const others = ownPairs(i).map(([a, b]) => (a === i ? b : a));
  others.sort((a, b) => row[b] - row[a] || a - b);
  at("here").textContent = data.stations[i].name;
  keepFocus(at("row").tBodies[0], [i, ...others].map((j) => rowOf(i, j, row[j], x[j])));
  const cells = at("row").tFoot.rows[0].cells;
  cells[1].textContent = text(row.reduce((sum, weight) => sum + weight, 0), 2);
  cells[3].firstChild.textContent = text(row.reduce((sum, weight, j) => sum + weight * x[j], 0), 2, "+");
}

function rowOf(i, j, weight, x) {
  const name = data.stations[j].name + (j === i ? " (itself)" : "");
  const value = state.reports[j] ? text(x, 2, "+") : "silent";
  const product = html("td", { class: "live-product", style: bar(weight * x) }, text(weight * x, 2, "+"));
  const cells = [html("th", { scope: "row" }, name), html("td", {}, text(weight, 2)), html("td", {}, value), product];
  const line = html("tr", {}, ...cells, html("td", {}, ...(i === j ? [] : [edgeButton(i, j)])));
  line.dataset.j = j;
  return line;
}

// Ends of a bar that begins in the middle of its cell.
function bar(value) {
  const end = 50 + 50 * Math.max(-1, Math.min(1, value));
  return `--from:${Math.min(50, end).toFixed(1)}%;--to:${Math.max(50, end).toFixed(1)}%`;
}

function edgeButton(i, j) {
  const isCut = state.cut.has(pairKey(i, j));
  const names = `${data.stations[i].name} and ${data.stations[j].name}`;
  const label = `${isCut ? "Restore" : "Cut"} the edge between ${names}`;
  const button = html("button", { type: "button", "aria-label": label }, isCut ? "Restore" : "Cut");
  button.dataset.edge = pairKey(i, j);
  return button;
}

// New content in place of the old; a button that had the focus keeps it.
function keepFocus(parent, content) {
  const held = parent.contains(document.activeElement) ? document.activeElement.dataset.edge : null;
  parent.replaceChildren(...content);
  if (held) parent.querySelector(`[data-edge="${held}"]`)?.focus();
}

function drawEdgeList() {
  const items = shown.pairs.map(([i, j]) => {
    const km = Math.round(distanceKm(state.places[i], state.places[j]));
    const names = `${data.stations[i].name} – ${data.stations[j].name}, ${km} km `;
    return html("li", isWhole([i, j]) ? {} : { class: "is-cut" }, html("span", {}, names), edgeButton(i, j));
  });
  keepFocus(at("edge-buttons"), items);
}

function drawCards() {
  const height = 46; // of the picture, for 20 m/s
  const tall = (wind) => Math.min(wind / 20, 1) * height;
  [...at("cards").children].forEach((item, i) => {
    const card = item.firstElementChild;
    const tomorrow = shown.forecast?.[i] ?? null;
    card.setAttribute("aria-pressed", i === state.chosen);
    card.classList.toggle("is-silent", !state.reports[i]);
    card.querySelectorAll("rect").forEach((rect, d) => {
      set(rect, { y: height - tall(state.wind[d][i]), height: tall(state.wind[d][i]) });
    });
    const usual = height - tall(shown.days.season.at(-1)[i] ** 2);
    set(card.querySelector(".live-usual"), { y1: usual, y2: usual });
    set(card.querySelector(".live-untouched"), { cy: height - tall(shown.days.forecast[i]) });
    const dot = card.querySelector(".live-tomorrow");
    dot.style.visibility = tomorrow === null ? "hidden" : "visible";
    set(dot, { cy: height - tall(tomorrow ?? 0) });
    const words = card.querySelector("[data-live=card]");
    words.replaceChildren(`${text(shown.today[i])} → `, html("b", {}, text(tomorrow)));
  });
}

function drawTable() {
  const change = valuesOf("change");
  const table = at("numbers");
  shown.days.dates.slice(0, 5).forEach((day, d) => (table.tHead.rows[0].cells[1 + d].textContent = shortDate(day)));
  [...table.tBodies[0].rows].forEach((row, i) => {
    const past = state.wind.map((winds) => (state.reports[i] ? text(winds[i]) : "–"));
    const rest = [change[i], shown.persistence[i], shown.days.observed[i]];
    const texts = [...past, text(shown.forecast?.[i] ?? null), text(rest[0], 1, "+"), text(rest[1]), text(rest[2])];
    texts.forEach((word, c) => ((row.cells[1 + c].firstElementChild ?? row.cells[1 + c]).textContent = word));
  });
}

// For ears: the summary, once the reader has paused.
let pause;
let first = true;
function announce() {
  clearTimeout(pause);
  if (first) return void (first = false); // nothing has happened yet
  pause = setTimeout(() => (at("announce").textContent = summary()), 700);
}

function say(words, isError = false) {
  at("status").textContent = words;
  at("status").classList.toggle("is-error", isError);
}

// ------------------------------------------------------------------ what a reader does

function choose(i) {
  state.chosen = i;
  update();
}

function toggle(key) {
  if (!state.cut.delete(key)) state.cut.add(key);
  update();
}

function move(i, x, y) {
  state.places[i] = fromMap(x, y);
  update();
}

// Cards become buttons when there is something to press for.
function makeButtons() {
  for (const card of app.querySelectorAll("div.live-card")) {
    const button = html("button", { type: "button", class: "live-card", "data-i": card.dataset.i });
    button.append(...card.childNodes);
    card.replaceWith(button);
  }
}

function listen() {
  const map = at("map");
  let drag = null;
  const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());

  map.addEventListener("pointerdown", (event) => {
    const node = event.target.closest(".live-node");
    if (!node || event.button) return;
    const [x, y] = toMap(state.places[Number(node.dataset.i)]);
    const from = point(event);
    drag = { i: Number(node.dataset.i), dx: x - from.x, dy: y - from.y, from, moved: false };
    node.setPointerCapture(event.pointerId);
    choose(drag.i);
  });
  // A finger on a station moves it; elsewhere it scrolls the page. (The style touch-action does not reach into an SVG.)
  map.addEventListener("touchstart", (event) => event.target.closest(".live-node") && event.preventDefault(), {
    passive: false,
  });
  map.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const to = point(event);
    drag.moved ||= Math.hypot(to.x - drag.from.x, to.y - drag.from.y) > 3; // a tap is no move
    if (drag.moved) move(drag.i, to.x + drag.dx, to.y + drag.dy);
  });
  for (const end of ["pointerup", "pointercancel"]) map.addEventListener(end, () => (drag = null));
  map.addEventListener("click", (event) => {
    const edge = event.target.closest(".live-edge");
    if (edge) toggle(edge.dataset.pair);
  });
  nodes().forEach((node, i) => {
    set(node, { tabindex: 0, role: "button", "aria-describedby": "live-hint" });
    node.addEventListener("keydown", (event) => pressed(event, i));
  });

  at("days").addEventListener("change", ({ target }) => {
    state.days = target.value;
    state.wind = daysOf(target.value).wind.map((row) => [...row]);
    update();
  });
  at("station").addEventListener("change", ({ target }) => choose(Number(target.value)));
  at("cards").addEventListener("click", ({ target }) => {
    const card = target.closest(".live-card");
    if (card) choose(Number(card.dataset.i));
  });
  for (const input of app.querySelectorAll("[name=live-view]")) {
    input.addEventListener("change", () => {
      state.view = input.value;
      update();
    });
  }
  at("reports").addEventListener("change", ({ target }) => {
    state.reports[state.chosen] = target.checked;
    update();
  });
  at("cut-off").addEventListener("click", () => {
    const whole = ownPairs(state.chosen).some(isWhole);
    data.stations.forEach((_, j) => state.cut.delete(pairKey(state.chosen, j)));
    if (whole) isolate(state.chosen);
    update();
  });
  at("home").addEventListener("click", () => {
    const { lat, lon } = data.stations[state.chosen];
    state.places[state.chosen] = { lat, lon };
    update();
  });
  at("reset").addEventListener("click", () => {
    state = { ...untouched(state.days, state.chosen), view: state.view };
    update();
  });
  at("inputs").addEventListener("input", ({ target }) => {
    if (!target.dataset.d) return;
    state.wind[target.dataset.d][state.chosen] = Number(target.value);
    update();
  });
  app.addEventListener("click", ({ target }) => target.dataset.edge && toggle(target.dataset.edge));
  for (const button of document.querySelectorAll("[data-do]")) {
    button.parentElement.hidden = false;
    button.addEventListener("click", async () => {
      perform(JSON.parse(button.dataset.do));
      await update(); // the page may grow or shrink above the map
      at("stage").focus({ preventScroll: true });
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      at("stage").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
    });
  }
}

function pressed(event, i) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.key === "Enter" || event.key === " ") choose(i);
  else if (event.key in ways) {
    const [east, north] = ways[event.key].map((way) => (way * STEP_KM * (event.shiftKey ? 5 : 1)) / 111.2);
    const { lat, lon } = state.places[i];
    state.chosen = i;
    move(i, ...toMap({ lat: lat + north, lon: lon + east / Math.cos((lat * Math.PI) / 180) }));
  } else return;
  event.preventDefault();
}

// ------------------------------------------------------------------ start

async function start() {
  try {
    const found = await fetch(new URL("data.json", folder));
    if (!found.ok) throw new Error(`data.json: status ${found.status}`);
    data = await found.json();
  } catch (error) {
    say(`What this page needs could not be loaded (${error.message}). It stays as it was built.`, true);
    return;
  }
  state = untouched(at("days").value, Number(at("station").value));
  makeButtons();
  listen();
  for (const name of ["controls", "inputs", "hint", "edge-list"]) at(name).hidden = false;
  app.classList.add("is-live");
  follow();
  draw();
  if (navigator.connection?.saveData) offer();
  else idle(load);
}

// After everything else: the runtime is larger than the rest of the book's page.
function idle(next) {
  const later = () => ("requestIdleCallback" in window ? requestIdleCallback(next, { timeout: 2000 }) : setTimeout(next));
  if (document.readyState === "complete") later();
  else addEventListener("load", later, { once: true });
}

function offer() {
  say("The graph follows you already. The network itself is 14 MB, and your browser asks to save data: ");
  const button = html("button", { type: "button" }, "load it");
  button.addEventListener("click", load);
  at("status").append(button);
}

async function load() {
  say("You can change things already. The network is on its way …");
  let last = 0;
  try {
    const loaded = await loadNetwork(folder, (share) => {
      if (share - last < 0.25) return; // a few steps are enough to hear
      last = share;
      say(`You can change things already. The network is on its way: ${Math.round(100 * share)} % …`);
    });
    say(await tried(loaded));
  } catch (error) {
    say(
      `The network could not be loaded (${error.message}). The graph follows you all the same, and the forecasts ` +
        "shown are those made when the book was built.",
      true,
    );
    return;
  }
  update();
}

// The network's first forecast, held against the one that PyTorch made when the book was built.
async function tried(loaded) {
  network = loaded;
  const days = daysOf(state.days);
  const scales = data.stations.map((one) => one.scale);
  const x = inputs(days.wind, days.season, scales, days.wind[0].map(() => true));
  const z = await run(loaded, x, data.operator);
  const apart = Math.max(...z.map((value, i) => Math.abs(value - days.z[i])));
  if (!(apart < 1e-4)) throw new Error(`it differs from PyTorch by ${apart}`);
  const began = performance.now();
  for (let i = 0; i < 10; i++) await run(loaded, x, data.operator);
  const each = (performance.now() - began) / 10;
  return (
    `The network runs in this page: ${data.weights} weights, ${each.toFixed(1)} ms a forecast. ` +
    `It repeats PyTorch’s forecast of these days to within ${apart.toExponential(0)} standard deviations.`
  );
}

if (app) start();
