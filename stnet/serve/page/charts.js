// What a video's classes are and why: bars, the segments' frames, their shares.
import { byId, figure, make, nameOf } from "./elements.js";
import { clock, percent, say, signed } from "./words.js";

/** The most probable classes, a bar each, and above them that the video is of none. */
export function showClasses(result) {
  const { categories, is_unknown, scaled_probability, threshold } = result ?? { categories: [] };
  byId("unknown").hidden = !is_unknown;
  if (is_unknown) {
    const values = { score: percent(scaled_probability), threshold: percent(threshold) };
    byId("unknown").textContent = say("unknownWhy", values);
  }
  const rows = categories.map(({ id, name, score }) =>
    make(
      "li",
      { "data-id": id },
      nameOf(name),
      figure(score, percent(score)),
      make("span", { class: "bar", "aria-hidden": "true", vars: { share: score } }),
    ),
  );
  byId("classes").replaceChildren(...rows);
}

/** The segments' frames and, of the chosen class, their shares. `seek` takes seconds. */
export function showSegments(result, seek) {
  const segments = result?.segments ?? [];
  const shares = result?.shares ?? [];
  byId("segments-section").hidden = segments.length === 0;
  byId("shares-choice").hidden = byId("shares-note").hidden = shares.length === 0;
  const choice = byId("shares-class");
  const before = choice.value;
  choice.replaceChildren(...shares.map(({ name }, place) => make("option", { value: place }, name)));
  if (before && before < shares.length) choice.value = before;
  const rows = segments.map((segment, place) => segmentRow(segment, place, shares.length > 0, seek));
  byId("segments").replaceChildren(...rows);
  const showChosen = () => showShares(shares[choice.value]);
  choice.onchange = showChosen;
  showChosen();
}

function segmentRow({ seconds, image }, place, hasShares, seek) {
  const name = say("segment", { number: place + 1, start: clock(seconds[0]), end: clock(seconds.at(-1)) });
  const times = make("span", { class: "times" }, ...seconds.map((time) => make("span", {}, clock(time))));
  const button = make("button", { type: "button", "aria-label": name, vars: { frames: seconds.length } });
  if (image) button.append(make("img", { src: image, alt: "" }));
  button.append(times);
  button.addEventListener("click", (event) => {
    const { left, width } = button.getBoundingClientRect();
    const pointed = event.detail ? Math.floor(((event.clientX - left) / width) * seconds.length) : 0; // 0: by keyboard
    seek(seconds[Math.min(Math.max(pointed, 0), seconds.length - 1)]);
  });
  const row = make("li", {}, make("span", { class: "place", "aria-hidden": "true" }, String(place + 1)), button);
  if (hasShares) row.append(make("span", { class: "share" }, make("span", { class: "bar" }), make("data")));
  if (hasShares) button.after(make("span", { class: "unseen" }, say("share")));
  return row;
}

function showShares(chosen) {
  byId("shares-sum").textContent = "";
  if (!chosen) return;
  const most = Math.max(...chosen.shares.map(Math.abs), 1e-9);
  document.querySelectorAll("#segments .share").forEach((element, place) => {
    const share = chosen.shares[place];
    const [bar, data] = element.children;
    bar.classList.toggle("against", share < 0);
    bar.style.setProperty("--share", Math.abs(share) / most);
    data.value = share;
    data.textContent = signed(share);
  });
  const { logit, rest, score } = chosen;
  if (![logit, rest, score].every(Number.isFinite)) return;
  const sum = chosen.shares.reduce((all, share) => all + share, 0);
  const values = { sum: signed(sum), rest: signed(rest), logit: signed(logit), score: percent(score) };
  byId("shares-sum").textContent = say("sharesSum", values);
}
