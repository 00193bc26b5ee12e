// The video that is looked at, where the browser can play it.
import { byId } from "./elements.js";

const player = byId("player");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const frame = byId("frame");
let moved = () => {};

/** Play a file from the browser's own memory, and no other. */
export function play(file) {
  URL.revokeObjectURL(player.src);
  setFloating(false);
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
  const { top, bottom } = frame.getBoundingClientRect();
  const middle = (top + bottom) / 2;
  if (!player.hidden && (middle < 0 || middle > innerHeight)) setFloating(true);
}

/** Lift the video out of a page that is scrolled away from it, into a corner; or put it back. */
function setFloating(floating) {
  if (floating) frame.style.height = `${frame.offsetHeight}px`; // what is below stays where it is
  else frame.style.removeProperty("height");
  frame.classList.toggle("floating", floating);
  byId("dock").hidden = !floating;
}

function setPlayable(playable) {
  player.hidden = !playable;
  byId("unplayable").hidden = playable;
  byId("shown").classList.toggle("unplayable", !playable);
}

function followWhilePlaying() {
  moved(player.currentTime);
  if (!player.paused && !calm.matches) requestAnimationFrame(followWhilePlaying);
}

byId("dock").addEventListener("click", () => {
  setFloating(false);
  player.focus();
});
new IntersectionObserver(([{ intersectionRatio }]) => intersectionRatio > 0.5 && setFloating(false), { threshold: 0.55 }).observe(frame);
player.addEventListener("error", () => setPlayable(false));
player.addEventListener("loadedmetadata", () => setPlayable(player.videoWidth > 0)); // sound alone is no video
player.addEventListener("play", followWhilePlaying);
player.addEventListener("timeupdate", () => moved(player.currentTime));
