// The video that is looked at, where the browser can play it.
import { byId } from "./elements.js";

const player = byId("player");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let moved = () => {};

/** Play a file from the browser's own memory, and no other. */
export function play(file) {
  URL.revokeObjectURL(player.src);
  setPlayable(true);
  player.autoplay = player.loop = !calm.matches;
  player.src = URL.createObjectURL(file);
}

/** Call `follow` with the second that is shown, whenever another one is. */
export function whenMoved(follow) {
  moved = follow;
  moved(player.currentTime);
}

/** Stop at a second. */
export function seek(seconds) {
  player.pause();
  player.currentTime = seconds + 0.001; // a frame's time stamp, rounded down, would be the frame before
  player.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
}

function setPlayable(playable) {
  player.hidden = !playable;
  byId("unplayable").hidden = playable;
}

function followWhilePlaying() {
  moved(player.currentTime);
  if (!player.paused && !calm.matches) requestAnimationFrame(followWhilePlaying);
}

player.addEventListener("error", () => setPlayable(false));
player.addEventListener("loadedmetadata", () => setPlayable(player.videoWidth > 0)); // sound alone is no video
player.addEventListener("play", followWhilePlaying);
player.addEventListener("timeupdate", () => moved(player.currentTime));
