// Questions to the server: the newest of each kind counts, and an error says what the server said.

const running = new Map();

/** An error whose message may be shown to the user as it is. */
export class Told extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Ask for JSON. A newer question of the same `kind` aborts the older, which then gives null. */
export async function ask(kind, address, options = {}) {
  running.get(kind)?.abort();
  const abort = new AbortController();
  running.set(kind, abort);
  try {
    return await answer(address, { ...options, signal: abort.signal });
  } catch (error) {
    if (abort.signal.aborted) return null;
    throw error;
  } finally {
    if (running.get(kind) === abort) running.delete(kind);
  }
}

/** Let nobody wait for the answer to a question any more. */
export const forget = (kind) => running.get(kind)?.abort();

export const post = (kind, address, body) =>
  ask(kind, address, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

/** Send a file to be embedded; several may be on their way. */
export function upload(modality, blob, name) {
  const form = new FormData();
  form.append("file", blob, name);
  return answer(`/api/uploads/${encodeURIComponent(modality)}`, { method: "POST", body: form });
}

export const itemOf = (number) => answer(`/api/items/${number}`);

export async function pointsOf(address) {
  const response = await reached(address);
  if (!response.ok) throw new Told(await reason(response), response.status);
  return new Float32Array(await response.arrayBuffer());
}

async function answer(address, options) {
  const response = await reached(address, options);
  if (!response.ok) throw new Told(await reason(response), response.status);
  return response.json();
}

async function reached(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Told("The server does not answer. Is it still running? Start it again and repeat the search.");
  }
}

async function reason(response) {
  try {
    const told = await response.json();
    const detail = told.detail ?? told.message ?? told.error;
    if (typeof detail === "string") return detail;
    if (Array.isArray(detail)) return detail.map((each) => `${(each.loc ?? []).join(".")}: ${each.msg}`).join("; ");
  } catch {
    // not JSON: the status has to do
  }
  return `The server answered ${response.status} ${response.statusText}.`;
}
