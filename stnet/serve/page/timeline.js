// A long video over time: a track a class, events, and where the player is.
import { byId, drawing, figure, make, nameOf } from "./elements.js";
import { clock, percent, say } from "./words.js";

const TRACKS = 8; // at most
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
const SETTINGS = { window: ["0.1", ""], stride: ["0.1", ""], threshold: ["0.01", "1"], hold: ["0.01", "1"] }; // least, most

/** Fields for the settings, with the server's own at first. */
export function showSettings(defaults) {
  const fields = Object.entries(SETTINGS).map(([name, [least, most]]) => {
    const bounds = { min: least, max: most || null, step: "any", inputmode: "decimal" };
    const input = make("input", { type: "number", name, value: defaults[name] ?? "", required: true, ...bounds });
    return make("label", {}, make("span", { "data-say": name }, say(name)), input);
  });
  byId("timeline-settings").replaceChildren(...fields);
}

/** The time that each window speaks for: halfway to the centres of the neighbours that it overlaps; see engine/events.py. */
function cellsOf(windows) {
  const cells = windows.map(({ start, end }) => [start, end]);
  for (let i = 1; i < windows.length; i += 1) {
    const [before, after] = [windows[i - 1], windows[i]];
    if (after.start >= before.end) continue;
    cells[i - 1][1] = cells[i][0] = (before.start + before.end + after.start + after.end) / 4;
  }
  return cells;
}

/** {id, name, scores of each window}: classes of events first, then the most probable on the whole. */
function tracksOf({ windows, events }) {
  const tracks = new Map();
  windows.forEach(({ categories }, place) => {
    for (const { id, name, score } of categories) {
      if (!tracks.has(id)) tracks.set(id, { id, name, scores: new Float64Array(windows.length), weight: 0 });
      const track = tracks.get(id);
      track.scores[place] = score;
      track.weight += score;
    }
  });
  for (const { id } of events) if (tracks.has(id)) tracks.get(id).weight += windows.length;
  return [...tracks.values()].sort((one, other) => other.weight - one.weight).slice(0, TRACKS);
}

function area(scores, cells, length) {
  const steps = cells.map(([from, to], i) => `H${from / length}V${1 - scores[i]}H${to / length}V1`);
  return `M0 1${steps.join("")}Z`;
}

function ticks(length) {
  const step = STEPS.find((seconds) => length / seconds <= 5) ?? length;
  const marks = [];
  for (let time = 0; time <= length; time += step) {
    marks.push(make("span", { vars: { at: time / length } }, clock(time, step < 1 ? 1 : 0)));
  }
  return make("div", { class: "ticks", "aria-hidden": "true" }, ...marks);
}

function track({ name, scores, id }, { cells, events, length, seek }) {
  const spans = events
    .filter((event) => event.id === id)
    .map(({ start, end }) => make("i", { vars: { from: start / length, to: end / length } }));
  const place = make("div", { class: "track", "aria-hidden": "true" }, drawing(area(scores, cells, length)), ...spans);
  place.addEventListener("click", (event) => {
    const { left, width } = place.getBoundingClientRect();
    seek(((event.clientX - left) / width) * length);
  });
  return make("li", {}, make("span", { class: "name", title: name }, nameOf(name)), place);
}

function eventsTable(events, seek) {
  if (!events.length) return make("p", { class: "note" }, say("noEvents"));
  const head = ["start", "end", "class", "probability"].map((key) => make("th", { scope: "col", class: key }, say(key)));
  const rows = events.map(({ start, end, name, score }) => {
    const button = make("button", { type: "button", class: "time", onclick: () => seek(start) }, clock(start));
    const cells = [[button], [clock(end)], [nameOf(name)], [figure(score, percent(score))]];
    return make("tr", {}, ...cells.map((cell, i) => make("td", { class: head[i].className }, ...cell)));
  });
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}

function windowsTable(windows) {
  const rows = windows.map(({ start, end, categories }) => {
    const told = categories.flatMap(({ name, score }, i) => [i ? ", " : "", nameOf(name), ` ${percent(score)}`]);
    return make("tr", {}, make("td", {}, clock(start)), make("td", {}, clock(end)), make("td", {}, ...told));
  });
  const head = ["start", "end", "probability"].map((key) => make("th", { scope: "col" }, say(key)));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}

/** The windows as a table, made when it is opened. */
function windowsDetails(windows) {
  const box = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": say("windows") });
  const details = make("details", {}, make("summary", {}, say("windows")), box);
  details.addEventListener("toggle", () => box.childElementCount || box.append(windowsTable(windows)));
  return details;
}

function slider(length, seek) {
  const attributes = { type: "range", min: 0, max: length, step: "any", value: 0, "aria-label": say("position") };
  const input = make("input", attributes);
  input.addEventListener("input", () => seek(Number(input.value)));
  return input;
}

/** Show a timeline, or nothing. Returns what moves its marker to a second. */
export function showTimeline(result, seek) {
  const root = byId("timeline");
  root.replaceChildren();
  if (!result?.windows.length) return () => {};
  const { windows, events, notes = [] } = result;
  const length = windows.at(-1).end;
  const shown = { cells: cellsOf(windows), events, length, seek };
  const tracks = make("ol", { class: "tracks" }, ...tracksOf(result).map((row) => track(row, shown)));
  const input = slider(length, seek);
  const chart = make("div", { class: "chart" }, tracks, make("div", { class: "axis" }, input, ticks(length)));
  const topk = windows[0].categories.length;
  const told = [say("tracksNote", { topk }), ...notes.map((text) => say("serverNote", { text }))];
  root.append(
    make("h4", {}, say("tracks")),
    chart,
    make("ul", { class: "note" }, ...told.map((text) => make("li", {}, text))),
    make("h4", {}, say("events")),
    eventsTable(events, seek),
    windowsDetails(windows),
  );
  return (second) => {
    const at = Math.min(Math.max(second, 0), length);
    chart.style.setProperty("--at", at / length);
    input.value = at;
    const running = events.filter(({ start, end }) => start <= second && second < end).map(({ name }) => name);
    input.setAttribute("aria-valuetext", [clock(at, 1), ...running].join(", "));
  };
}
