// The page's words in English and Chinese, and numbers as each writes them.

const ENGLISH = {
  subtitle: "What is in a video?",
  about: "{model} · {classes} classes · {segments} × {frames} frames · {precision}",
  language: "Switch to Chinese",
  token: "Token",
  tokenNote: "This server asks for a token. Whoever started the server has it: chosen by them, or printed by the server with a link.",
  tokenWrong: "The server does not know this token.",
  tokenSend: "Go on",
  drop: "Drop a video here, or",
  choose: "choose one",
  limits: "Up to {size} and {time} long. It is sent to this server alone, and deleted there when the answer is out.",
  noServer: "The server does not answer.",
  again: "Try again",
  videos: "Videos",
  folder: "{name} is a folder: choose the videos in it.",
  unplayable: "This browser cannot play the file. That says nothing about whether the network can read it.",
  player: "The video",
  dock: "Back to its place",
  frames: "{frames} frames",
  decoder: "decoded by {decoder}",
  classes: "Most probable classes",
  unknownWhy: "Unknown: the scaled probability {score} is below {threshold}.",
  segments: "What the network saw",
  segmentsNote: "A row is a segment: consecutive frames that the network takes as one super-image. Choose one to go there in the video.",
  segment: "Segment {number}, {start} to {end}",
  sharesOf: "Shares of",
  sharesNote: "A share is what a segment adds to the class's logit, its score before softmax: to the right it speaks for the class, to the left against it.",
  sharesSum: "The shares add up to {sum}; with {rest} that no segment adds, the logit is {logit}, the probability {score}.",
  share: "Share",
  timeline: "Timeline",
  timelineNote: "The video scored window by window, as each would be scored cut out: for videos that are longer than what the network was trained on.",
  timelineStart: "Score it over time",
  settings: "Settings",
  window: "Window, seconds",
  stride: "Stride, seconds",
  threshold: "An event begins at",
  hold: "and lasts down to",
  tracks: "Probability over time",
  tracksNote: "Of each window, the {topk} most probable classes are known; the others are drawn as 0. The lines below a track are its events.",
  position: "Position in the video",
  events: "Events",
  noEvents: "No class reached the threshold in any window.",
  windows: "Windows as a table",
  start: "Start",
  end: "End",
  class: "Class",
  probability: "Probability",
  stateWaiting: "Waits for the videos before it",
  stateConnecting: "Waits for the server",
  stateSending: "Sending",
  stateSent: "Sent; the server looks at it",
  stateQueued: "Queued on the server",
  stateDecoding: "Decoding",
  stateComputing: "Computing",
  stateFull: "The server is full. Trying again in {seconds} s",
  serverNote: "{text}",
  stateToken: "Waits for the token",
  stateDone: "Done: {name}, {score}",
  stateUnknown: "Done: unknown",
  stateTimelineDone: "Done: {count} events",
  stateCancelled: "Cancelled",
  cancel: "Cancel",
  lost: "The connection to the server was lost, or the file can no longer be read.",
  tooLarge: "The file has {size}, and this server takes at most {most}.",
  httpStatus: "The server answered with status {status}.",
  refused: "{message}",
  refusedFor: "{reason}: {message}",
  for_no_video: "The file is no video, or it is damaged",
  for_crashed: "The program that reads videos broke off on this file",
  for_too_long: "The video is too long for this server",
  for_too_many_frames: "The video has too many frames for this server",
  for_too_large_frames: "The video's pictures are too large for this server",
  for_time: "The server ended it",
  for_setting: "A setting makes no sense",
  api: "API",
};

const CHINESE = {
  subtitle: "视频里有什么？",
  about: "{model} · {classes} 个类别 · {segments} × {frames} 帧 · {precision}",
  language: "切换为英文",
  token: "令牌",
  tokenNote: "此服务器需要令牌，请向启动服务器的人索取：令牌由其设定，或由服务器启动时与链接一起打印。",
  tokenWrong: "服务器不认识这个令牌。",
  tokenSend: "继续",
  drop: "将视频拖到这里，或",
  choose: "选择文件",
  limits: "不超过 {size}、{time}。只发送到本服务器，给出结果后即删除。",
  noServer: "服务器没有应答。",
  again: "重试",
  videos: "视频",
  folder: "{name} 是文件夹：请选择其中的视频。",
  unplayable: "浏览器无法播放此文件；这不说明网络能否读取它。",
  player: "视频",
  dock: "回到原位",
  frames: "{frames} 帧",
  decoder: "由 {decoder} 解码",
  classes: "最可能的类别",
  unknownWhy: "未知：缩放后的概率 {score} 低于阈值 {threshold}。",
  segments: "网络看到的画面",
  segmentsNote: "每行是一个分段：网络把这几个连续的帧当作一张 super-image。点击一行可跳到视频中的对应位置。",
  segment: "分段 {number}，{start} 至 {end}",
  sharesOf: "分段贡献，类别",
  sharesNote: "贡献是一个分段为该类别的 logit（softmax 之前的得分）增加的量：向右表示支持该类别，向左表示反对。",
  sharesSum: "各分段的贡献之和为 {sum}；加上不属于任何分段的 {rest}，logit 为 {logit}，概率为 {score}。",
  share: "贡献",
  timeline: "时间线",
  timelineNote: "逐窗口打分，每个窗口的得分与单独剪出时相同；适用于比训练片段更长的视频。",
  timelineStart: "逐窗口打分",
  settings: "设置",
  window: "窗口（秒）",
  stride: "步长（秒）",
  threshold: "事件开始的概率",
  hold: "事件延续的概率",
  tracks: "概率随时间的变化",
  tracksNote: "每个窗口只给出最可能的 {topk} 个类别，其余的画为 0。轨道下方的横线是事件。",
  position: "视频中的位置",
  events: "事件",
  noEvents: "没有窗口中的类别达到阈值。",
  windows: "窗口表格",
  start: "开始",
  end: "结束",
  class: "类别",
  probability: "概率",
  stateWaiting: "等待前面的视频",
  stateConnecting: "等待服务器应答",
  stateSending: "正在发送",
  stateSent: "已发送，服务器正在查看",
  stateQueued: "在服务器上排队",
  stateDecoding: "正在解码",
  stateComputing: "正在计算",
  stateFull: "服务器已满，{seconds} 秒后重试",
  serverNote: "服务器的说明（英文）：{text}",
  stateToken: "等待令牌",
  stateDone: "完成：{name}，{score}",
  stateUnknown: "完成：未知",
  stateTimelineDone: "完成：{count} 个事件",
  stateCancelled: "已取消",
  cancel: "取消",
  lost: "与服务器的连接已断开，或文件已无法读取。",
  tooLarge: "文件大小为 {size}，服务器最多接受 {most}。",
  httpStatus: "服务器返回状态码 {status}。",
  refused: "服务器的答复：{message}",
  refusedFor: "{reason}：{message}",
  for_no_video: "文件不是视频，或已损坏",
  for_crashed: "读取视频的程序在此文件上中断",
  for_too_long: "视频太长，超出服务器的限制",
  for_too_many_frames: "视频的帧数太多，超出服务器的限制",
  for_too_large_frames: "视频的画面太大，超出服务器的限制",
  for_time: "服务器终止了处理",
  for_setting: "设置不合理",
  api: "API",
};

const KEY = "stnet.language";
export const WORDS = { en: ENGLISH, zh: CHINESE };

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage is off
  }
}

const chosen = remembered() ?? navigator.language.slice(0, 2).toLowerCase();
export let language = chosen === "zh" ? "zh" : "en";

/** The other language from now on, also at the next visit. */
export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  try {
    localStorage.setItem(KEY, language);
  } catch {
    // It is forgotten with this page.
  }
}

/** A text in the page's language, with {names} replaced by values. */
export function say(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Whether there is such a text. */
export const isSaid = (key) => Object.hasOwn(WORDS[language], key);

/** Put the page's language into every element that has a data-say. */
export function sayAll(root = document) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
}

const number = (value, digits, options = {}) =>
  new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits, ...options }).format(value);

export const count = (value) => number(value, 0);
export const percent = (value) => number(value, 2, { style: "percent" });
export const signed = (value) => number(value, 3, { signDisplay: "exceptZero" }).replace("-", "\u2212");

/** A size in bytes with the unit that leaves few digits. */
export function size(bytes) {
  for (const unit of ["byte", "kilobyte", "megabyte"]) {
    if (bytes < 1000) return number(bytes, 0, { style: "unit", unit });
    bytes /= 1000;
  }
  return number(bytes, 1, { style: "unit", unit: "gigabyte" });
}

/** A length of time in whole minutes, or seconds where it is none. */
export function duration(seconds) {
  const whole = seconds % 60 === 0;
  return number(whole ? seconds / 60 : seconds, 0, { style: "unit", unit: whole ? "minute" : "second" });
}

/** A time in a video: 0:05.20, 1:02:05.20. */
export function clock(seconds, digits = 2) {
  const all = Math.round(seconds * 10 ** digits) / 10 ** digits;
  const [hours, minutes] = [Math.floor(all / 3600), Math.floor(all / 60) % 60];
  const rest = (all % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}
