// A request that carries a file: what becomes of it, as it goes, and its result.

/** Why there is no result: the server's code and message. `status` is 0 where no answer came. */
export class Failure extends Error {
  constructor(status, { code = "", message = "" } = {}, retryAfter = 1) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** The bearer's words, where a token is known. */
export function authorization(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The server's reason in the body of a refusal, as far as it gives one. */
export function errorIn(text) {
  try {
    return JSON.parse(text).error ?? {};
  } catch {
    return {};
  }
}

/** Call `take` with each whole line of JSON, as the answer grows. */
function lineReader(take) {
  let read = 0;
  return (text, whole) => {
    for (;;) {
      let end = text.indexOf("\n", read);
      if (end < 0 && whole && read < text.length) end = text.length;
      if (end < 0) return;
      const line = text.slice(read, end).trim();
      read = end + 1;
      if (line) take(JSON.parse(line));
    }
  };
}

function refusal(request) {
  const wait = Number.parseInt(request.getResponseHeader("Retry-After"), 10);
  return new Failure(request.status, errorIn(request.responseText), Number.isFinite(wait) ? Math.max(1, wait) : 1);
}

function sendOnce(address, file, { token, signal, onState }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much was sent
    let last = {};
    const readLines = lineReader((line) => {
      last = line;
      if (typeof line.state === "string") onState(line);
    });
    const readAnswer = (whole) => {
      if (request.status !== 200) return;
      try {
        readLines(request.responseText, whole);
      } catch {
        request.abort();
        reject(new Failure(0));
      }
    };
    request.open("POST", address);
    const headers = { Accept: "application/x-ndjson", "Content-Type": "application/octet-stream", ...authorization(token) };
    for (const name in headers) request.setRequestHeader(name, headers[name]);
    request.upload.onprogress = (event) => onState({ state: "sending", seconds: event.loaded, of: event.total });
    request.upload.onload = () => onState({ state: "sent" });
    request.onprogress = () => readAnswer(false);
    request.onload = () => {
      readAnswer(true);
      if (request.status !== 200) reject(refusal(request));
      else if (last.result) resolve(last.result);
      else reject(new Failure(last.error ? 200 : 0, last.error));
    };
    request.onerror = () => reject(new Failure(0));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort(), { once: true });
    onState({ state: "sending", seconds: 0, of: file.size });
    request.send(file);
  });
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    signal.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Send a file and give the result. While the server is full, wait as long as it says, and try again.
 *
 * `onState` gets {state, seconds, of}: "sending" (in bytes), "sent", "full" (seconds until the next try), and the server's.
 * Throws a Failure, or the signal's reason.
 */
export async function send(address, file, options) {
  for (;;) {
    try {
      return await sendOnce(address, file, options);
    } catch (failure) {
      if (failure.status !== 503) throw failure;
      for (let left = failure.retryAfter; left > 0; left--) {
        options.onState({ state: "full", seconds: left });
        await pause(1000, options.signal);
      }
    }
  }
}
