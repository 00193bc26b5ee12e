// The page: videos are taken, sent one after the other, and one of them is looked at.
import { showClasses, showSegments } from "./charts.js";
import { byId, make, nameOf } from "./elements.js";
import { play, seek, whenMoved } from "./player.js";
import { announce, line, ProgressBox, reason } from "./progress.js";
import { showSettings, showTimeline } from "./timeline.js";
import { authorization, Failure, errorIn, send } from "./upload.js";
import { clock, count, duration, language, percent, say, sayAll, size, switchLanguage } from "./words.js";

const TOKEN = "stnet.token";
const BARS = 5;

let info = null; // the server's /api/info
let token = "";
const videos = []; // {file, row, classify: work, timeline: work or null}
const waiting = []; // works
let running = null; // a work
let shown = null; // a video

const buttons = { cancel, again };
const boxes = {
  classify: new ProgressBox(byId("classify-progress"), buttons),
  timeline: new ProgressBox(byId("timeline-progress"), buttons),
};

// --- The server and its token

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname + location.search); // out of sight and of bookmarks
  try {
    if (given) sessionStorage.setItem(TOKEN, given);
    return given ?? sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return given ?? ""; // storage is off
  }
}

async function askInfo() {
  try {
    const answer = await fetch("api/info", { headers: authorization(token) });
    if (!answer.ok) throw new Failure(answer.status, errorIn(await answer.text()));
    info = await answer.json();
    showProblem(null);
    byId("token-form").hidden = true;
    showServer();
    showWaiting();
    workOn();
  } catch (failure) {
    if (failure.status === 401) askToken();
    else if (failure.status) showProblem(() => [reason(failure)]);
    else showProblem(() => [say("noServer"), " ", make("button", { type: "button", onclick: askInfo }, say("again"))]);
  }
}

function askToken() {
  const wrong = token !== "";
  showProblem(wrong ? () => [say("tokenWrong")] : null);
  byId("token-form").hidden = false;
  showWaiting();
  byId("token").focus();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // It is forgotten with this page.
  }
  byId("token").value = "";
  byId("token-form").hidden = true;
  askInfo();
});

let problem = null;

/** A line for the whole page; `parts` makes its text in the page's language. */
function showProblem(parts) {
  problem = parts;
  byId("problem").hidden = !parts;
  byId("problem").replaceChildren(...(parts ? parts() : []));
}

function showServer() {
  const { model, num_classes, seg_num, seglen, precision, limits } = info;
  const values = { model, classes: count(num_classes), segments: seg_num, frames: seglen, precision };
  byId("about").textContent = say("about", values);
  byId("limits").textContent = say("limits", { size: size(limits.bytes), time: duration(limits.seconds) });
  if (info.has_timeline && !byId("timeline-settings").childElementCount) showSettings(info.timeline);
}

// --- Works: a video's classes, or its timeline

function newWork(kind, video, query, summary) {
  return { kind, video, query, summary, state: "waiting", seconds: 0, of: 0, result: null, failure: null, abort: null };
}

function classifyWork(video) {
  const query = () => ({ topk: Math.min(BARS, info.num_classes), frames: true, shares: info.has_shares });
  const summary = () => {
    const { is_unknown, categories } = video.classify.result;
    if (is_unknown) return say("stateUnknown");
    const [{ name, score }] = categories;
    return say("stateDone", { name, score: percent(score) });
  };
  return newWork("classify", video, query, summary);
}

function timelineWork(video, settings) {
  const summary = () => say("stateTimelineDone", { count: count(video.timeline.result.events.length) });
  return newWork("timeline", video, () => settings, summary);
}

/** Why a work waits: for works before it, for the token, or for the server's first answer. */
function waitingState() {
  if (!byId("token-form").hidden) return "token";
  return info ? "waiting" : "connecting";
}

function showWaiting() {
  for (const work of waiting) {
    work.state = waitingState();
    showWork(work);
  }
}

function enqueue(work) {
  Object.assign(work, { state: waitingState(), result: null, failure: null });
  waiting.push(work);
  showWork(work);
  workOn();
}

async function workOn() {
  if (running || !info) return;
  while ((running = waiting.shift())) {
    await carryOut(running);
    if (running.state === "token") {
      waiting.unshift(running);
      running = null;
      return askToken();
    }
  }
}

async function carryOut(work) {
  work.abort = new AbortController();
  const { file } = work.video;
  const onState = ({ state, seconds = 0, of = 0 }) => {
    Object.assign(work, { state, seconds, of });
    showProgress(work);
  };
  try {
    const most = info.limits.bytes;
    if (file.size > most) throw Object.assign(new Failure(413), { bytes: file.size, most });
    const query = new URLSearchParams(work.query());
    work.result = await send(`api/${work.kind}?${query}`, file, { token, signal: work.abort.signal, onState });
    work.state = "done";
  } catch (failure) {
    work.failure = failure;
    if (failure.name === "AbortError") work.state = "cancelled";
    else if (failure.status === 401) work.state = "token";
    else if (failure instanceof Failure) work.state = "failed";
    else throw failure;
  }
  showWork(work);
}

function cancel(work) {
  const place = waiting.indexOf(work);
  if (place < 0) return work.abort.abort();
  waiting.splice(place, 1);
  work.state = "cancelled";
  showWork(work);
}

function again(work) {
  enqueue(work);
}

// --- What is seen

/** How a work stands. Returns whether it is of the video that is looked at. */
function showProgress(work) {
  showList();
  if (work !== shown?.[work.kind]) return false;
  boxes[work.kind].show(work);
  if (work.announced !== work.state) announce(line(work)); // not every second of a wait
  work.announced = work.state;
  return true;
}

/** How a work stands, and what came of it. */
function showWork(work) {
  if (!showProgress(work)) return;
  if (work.kind === "classify") showClassified();
  else showScored();
}

function showClassified() {
  const { result, state } = shown.classify;
  byId("timeline-section").hidden = !info?.has_timeline || state === "failed";
  showClasses(result);
  showSegments(result, seek);
  byId("notes").replaceChildren(...(result?.notes ?? []).map((text) => make("li", {}, say("serverNote", { text }))));
  byId("facts").textContent = result ? factsOf(result.video) : "";
}

/** What was read of a video, as far as it is known. */
function factsOf({ seconds, frames, width, height, decoder }) {
  const facts = [
    Number.isFinite(seconds) && clock(seconds),
    Number.isFinite(frames) && say("frames", { frames: count(frames) }),
    width && height && `${width} × ${height}`,
    decoder && say("decoder", { decoder }),
  ];
  return facts.filter(Boolean).join(" · ");
}

function showScored() {
  whenMoved(showTimeline(shown.timeline?.result, seek));
}

function newRow(video) {
  const state = make("span", { class: "note" });
  const button = make("button", { type: "button", onclick: () => show(video) }, nameOf(video.file.name), state);
  byId("videos").firstElementChild.append(make("li", {}, button));
  return { button, state };
}

function showList() {
  byId("videos").hidden = videos.length < 2;
  byId("videos").setAttribute("aria-label", say("videos"));
  for (const video of videos) {
    video.row.state.textContent = line(video.classify);
    if (video === shown) video.row.button.setAttribute("aria-current", "true");
    else video.row.button.removeAttribute("aria-current");
  }
}

function show(video) {
  shown = video;
  byId("shown").hidden = false;
  byId("name").firstElementChild.textContent = video.file.name;
  play(video.file);
  showAll();
}

/** Everything again: another video, or another language. */
function showAll() {
  sayAll();
  byId("language").textContent = language === "zh" ? "English" : "中文";
  byId("language").lang = language === "zh" ? "en" : "zh";
  byId("language").title = say("language");
  byId("player").setAttribute("aria-label", say("player"));
  if (info) showServer();
  showProblem(problem);
  if (!shown) return;
  showList();
  for (const kind in boxes) boxes[kind].show(shown[kind]);
  showClassified();
  showScored();
}

// --- What the visitor does

function take(files) {
  const taken = [...files].map((file) => {
    const video = { file, timeline: null };
    video.row = newRow(video);
    video.classify = classifyWork(video);
    return video;
  });
  if (!taken.length) return;
  if (info) showProblem(null);
  videos.push(...taken);
  show(taken[0]);
  for (const video of taken) enqueue(video.classify);
}

byId("language").addEventListener("click", () => {
  switchLanguage();
  showAll();
});

addEventListener("hashchange", () => {
  token = takeToken(); // a link with a new one, opened where the page is open already
  askInfo();
});

byId("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // the same file may be chosen again
});

byId("timeline-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { timeline } = shown;
  if (timeline && (timeline === running || waiting.includes(timeline))) return;
  shown.timeline = timelineWork(shown, Object.fromEntries(new FormData(event.target)));
  enqueue(shown.timeline);
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // a browser would leave the page for the file
    document.body.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
  });
}

addEventListener("drop", (event) => {
  if (!event.dataTransfer?.files.length) return;
  const folder = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).find((entry) => entry?.isDirectory);
  if (folder) showProblem(() => [say("folder", { name: folder.name })]);
  else take(event.dataTransfer.files);
});

token = takeToken();
showAll();
askInfo();
