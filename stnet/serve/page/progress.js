// How far a piece of work is, with a button that ends it and one that begins it again.
import { byId, make } from "./elements.js";
import { isSaid, say, size } from "./words.js";

const STATES = {
  waiting: "stateWaiting",
  connecting: "stateConnecting",
  sending: "stateSending",
  sent: "stateSent",
  queued: "stateQueued",
  decoding: "stateDecoding",
  computing: "stateComputing",
  full: "stateFull",
  token: "stateToken",
  cancelled: "stateCancelled",
};
const ENDED = ["done", "failed", "cancelled"];

/** Why it failed, in plain words. */
export function reason({ status, code, message, bytes, most }) {
  if (most) return say("tooLarge", { size: size(bytes), most: size(most) });
  if (message && isSaid(`for_${code}`)) return say("refusedFor", { reason: say(`for_${code}`), message });
  if (message) return say("refused", { message });
  return status ? say("httpStatus", { status }) : say("lost");
}

/** One line that says how a work stands. */
export function line(work) {
  if (work.state === "done") return work.summary();
  if (work.state === "failed") return reason(work.failure);
  return STATES[work.state] ? say(STATES[work.state], { seconds: Math.ceil(work.seconds) }) : work.state;
}

/** Say it to a screen reader. */
export function announce(text) {
  byId("status").textContent = text;
}

/** The visible progress of one work at a time. `cancel` and `again` take the work. */
export class ProgressBox {
  constructor(root, { cancel, again }) {
    this.root = root;
    this.title = root.closest("section").querySelector("h3"); // takes the focus of a button that is gone
    this.title.tabIndex = -1;
    this.text = make("p", {});
    this.bar = make("progress", { max: 1 });
    this.cancel = make("button", { type: "button", onclick: () => cancel(this.work) });
    this.again = make("button", { type: "button", onclick: () => again(this.work) });
    root.append(this.text, this.bar, this.cancel, this.again);
  }

  /** Show how a work stands; nothing where there is none, or it is done. */
  show(work) {
    const held = this.root.contains(document.activeElement);
    this.work = work;
    this.root.hidden = !work || work.state === "done";
    if (!this.root.hidden) this.write(work);
    if (held) (this.root.hidden ? this.title : this.again.hidden ? this.cancel : this.again).focus();
  }

  write(work) {
    const ended = ENDED.includes(work.state);
    const part = work.of > 0 && !ended && work.state !== "full" ? Math.min(work.seconds / work.of, 1) : null;
    const text = line(work);
    this.root.classList.toggle("problem", work.state === "failed");
    this.text.textContent = part === null ? text : `${text} · ${Math.floor(part * 100)}%`;
    this.bar.hidden = ended;
    this.bar.setAttribute("aria-label", text);
    if (part === null) this.bar.removeAttribute("value");
    else this.bar.value = part;
    this.cancel.hidden = ended;
    this.again.hidden = !ended;
    this.cancel.textContent = say("cancel");
    this.again.textContent = say("again");
  }
}
