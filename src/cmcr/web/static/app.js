// The page: one query, kept in the address so that a link restores it, and what comes back.

import { ask, forget, itemOf, post, Told, upload } from "./api.js";
import { isTurning, setTurning } from "./clouds.js";
import { accepted, modalityOf, previewOf, startRecording } from "./inputs.js";
import { openItem } from "./item.js";
import { setMap, setQuery } from "./map.js";
import { keepPreview, showParts, titleOf } from "./parts.js";
import { showRankings } from "./results.js";
import { byId, make, mark, MANY, MODALITIES, nameOf, ONE } from "./words.js";

const OPERATORS = ["=", "!=", "<", "<=", ">", ">="];
const KNOWN = ["id", "text", "folder", "path", "source", "modality", "space", "number", "live"]; // columns of every index
const SWITCHES = { duplicates: "group_duplicates", hubs: "hub_correction", mixed: "mixed" };

let facts = null; // what /api/index says
let query = emptyQuery();

function emptyQuery() {
  return { parts: [], targets: null, where: [], limit: 8, page: 0, duplicates: false, hubs: false, mixed: false };
}

// The address

function addressOf(found) {
  const words = new URLSearchParams();
  words.set("parts", JSON.stringify(found.parts));
  if (found.targets) words.set("targets", found.targets.join(","));
  for (const condition of found.where) words.append("where", condition);
  for (const name of Object.keys(SWITCHES)) if (found[name]) words.set(name, "1");
  if (found.limit !== 8) words.set("limit", found.limit);
  if (found.page) words.set("page", found.page);
  return `#${words}`;
}

/** Read a link; null if there is none or it is not whole. */
function queryOf(address) {
  const words = new URLSearchParams(address.replace(/^#/, ""));
  if (!words.has("parts")) return null;
  try {
    const parts = JSON.parse(words.get("parts"));
    const usable = (part) => MODALITIES.includes(part.modality) && Number.isFinite(part.weight ?? 1) &&
      (typeof part.text === "string" || Number.isInteger(part.item) || typeof part.upload === "string");
    if (!Array.isArray(parts) || !parts.every(usable)) throw new Error("parts");
    const number = (name, least, fallback) => Math.max(least, Number.parseInt(words.get(name), 10) || fallback);
    return {
      ...emptyQuery(), parts, where: words.getAll("where"), limit: number("limit", 1, 8), page: number("page", 0, 0),
      targets: words.has("targets") ? words.get("targets").split(",") : null,
      ...Object.fromEntries(Object.keys(SWITCHES).map((name) => [name, words.get(name) === "1"])),
    };
  } catch {
    return null;
  }
}

// Searching

const asked = (parts) => parts.map(({ name, ...part }) => part);

/** Search for the query as it stands; `remember` says whether it becomes a new page in the browser's history. */
async function search({ remember = true, message = "" } = {}) {
  const answer = query.parts.length ? post("search", "/api/search", request()) : null; // first, then what takes time here
  tell(message);
  showQuery();
  if (!answer) return showNothing();
  const address = addressOf(query);
  if (address !== location.hash) history[remember ? "pushState" : "replaceState"](null, "", address);
  busy(true);
  try {
    const found = await answer;
    if (!found) return; // a newer search is on its way
    show(found);
  } catch (error) {
    const lost = error.status === 404 && query.parts.some((part) => part.upload);
    const advice = lost ? " The server keeps uploads only while it runs and has room: give the file again." : "";
    tell(error.message + advice);
    const older = byId("rankings").children.length ? " What is below is older." : "";
    byId("status").textContent = `The search failed.${older}`;
  }
  busy(false);
}

function showNothing() {
  forget("search");
  byId("rankings").replaceChildren();
  byId("pager").hidden = true;
  byId("status").textContent = "Nothing is asked.";
  setQuery(null, []);
  busy(false);
}

function request() {
  return {
    parts: asked(query.parts), limit: query.limit, offset: query.page * query.limit, where: query.where,
    point: true,
    ...(query.targets ? { targets: query.targets } : {}),
    ...Object.fromEntries(Object.entries(SWITCHES).map(([name, key]) => [key, query[name]])),
  };
}

function show(found) {
  const hits = found.rankings.flatMap((ranking) => ranking.hits);
  const offset = query.page * query.limit;
  showRankings(found.rankings, { offset, corrected: query.hubs, act: { like, open, canLocate } });
  const lists = found.rankings.length;
  byId("status").textContent = `${hits.length} result${hits.length === 1 ? "" : "s"} in ${lists} list${lists === 1 ? "" : "s"}, ` +
    `${Math.max(1, Math.round(1000 * found.seconds))} ms. Compare cosines within a list only.`;
  const next = offset + query.limit;
  const more = next + query.limit <= facts.limits.results && found.rankings.some((ranking) => ranking.items > next);
  byId("pager").hidden = !more && query.page === 0;
  byId("previous").disabled = query.page === 0;
  byId("next").disabled = !more;
  byId("page").textContent = `Page ${query.page + 1}`;
  setQuery(found.point, hits.map((hit) => hit.item));
  nameItems();
}

/** Name the items of a link or an example, which come by number. */
async function nameItems() {
  for (const part of query.parts.filter((each) => each.item !== undefined && !each.name)) {
    const item = await itemOf(part.item).catch(() => null); // a name less is no failure
    if (!item) continue;
    part.name = nameOf(item);
    showQuery();
  }
}

const busy = (now) => byId("results").setAttribute("aria-busy", String(now));

function tell(message) {
  byId("problem").textContent = message;
  byId("problem").hidden = !message;
}

/** Take a part into the query: alone, or beside what is there. */
function give(part, { beside = byId("combine").checked } = {}) {
  query.parts = beside ? [...query.parts, part] : [part];
  query.page = 0;
  search();
}

const like = (hit) => {
  give({ modality: hit.modality, item: hit.item, weight: 1, name: nameOf(hit) });
  byId("results").focus({ preventScroll: true });
  byId("results").scrollIntoView({ block: "nearest" });
};
const canLocate = (hit) =>
  hit.modality === "image" && Boolean(hit.media_url) && query.parts.some((part) => part.modality !== "image");
const open = (hit, locate) => openItem(hit, { like, locate, parts: canLocate(hit) ? asked(query.parts) : null });

async function giveFiles(files) {
  let beside = byId("combine").checked;
  const failed = [];
  for (const file of files) {
    busy(true);
    byId("status").textContent = `Sending ${file.name}…`;
    try {
      const modality = modalityOf(file, facts.modalities);
      const most = facts.limits.body_bytes;
      const [size, largest] = [file.size, most].map((bytes) => `${(bytes / 1e6).toFixed(1)} MB`);
      if (file.size > most) throw new Told(`${file.name}: ${size}; at most ${largest} can be sent.`);
      const [sent, preview] = await Promise.all([upload(modality, file, file.name), previewOf(modality, file)]);
      if (preview) keepPreview(sent.upload, preview);
      give({ modality, upload: sent.upload, weight: 1, name: file.name }, { beside });
      beside = true;
    } catch (error) {
      failed.push(error.message);
    }
  }
  if (!failed.length) return;
  tell(failed.join(" "));
  if (failed.length < files.length) return;
  byId("status").textContent = "Nothing was searched.";
  busy(false);
}

// What is shown of the query

function showQuery() {
  showParts(query.parts, () => {
    query.page = 0;
    search();
  });
  for (const name of Object.keys(SWITCHES)) byId(name).checked = query[name];
  const offered = [...byId("limit").options].map((each) => each.value);
  if (!offered.includes(String(query.limit))) byId("limit").append(new Option(query.limit));
  byId("limit").value = String(query.limit);
  for (const box of byId("targets").querySelectorAll("input")) box.checked = isTarget(box.value);
  const switched = Object.keys(SWITCHES).filter((name) => query[name]);
  const set = (query.targets ? 1 : 0) + query.where.length + switched.length;
  byId("options-set").textContent = set ? ` (${set} set)` : "";
  document.title = query.parts.length ? `${query.parts.map(titleOf).join(" + ")}: cmcr` : "cmcr";
  if (byId("filters").dataset.where !== JSON.stringify(query.where)) showFilters();
}

function showFilters() {
  byId("filters").dataset.where = JSON.stringify(query.where);
  byId("filters").replaceChildren(...query.where.map((condition) => filterRow(condition)));
}

function filterRow(condition) {
  const [, column = "", operator = "=", value = ""] = condition.match(/^([^=!<>]*)(!=|<=|>=|=|<|>)([\s\S]*)$/) ?? [];
  const columns = make("select", { "aria-label": "Column", change: changed }, ...columnsInOrder().map((name) => new Option(name)));
  if (column) columns.value = column;
  const operators = make("select", { "aria-label": "Comparison", change: changed }, ...OPERATORS.map((name) => new Option(name)));
  operators.value = operator;
  const field = make("input", { type: "text", value, "aria-label": "Value", placeholder: "value, * for any", change: changed });
  const remove = make("button", { type: "button", className: "plain", textContent: "Remove", "aria-label": "Remove the filter" });
  remove.addEventListener("click", () => {
    row.remove();
    changed();
    byId("add-filter").focus();
  });
  const row = make("li", {}, columns, operators, field, remove);
  return row;
}

/** The user's own columns first. */
const columnsInOrder = () => [
  ...facts.columns.filter((name) => !KNOWN.includes(name)),
  ...KNOWN.filter((name) => facts.columns.includes(name)),
];

function changed() {
  const rows = [...byId("filters").children].map((row) => [...row.querySelectorAll("select, input")].map((each) => each.value));
  const where = rows.filter(([, , value]) => value !== "").map((row) => row.join(""));
  if (JSON.stringify(where) === JSON.stringify(query.where)) return;
  byId("filters").dataset.where = JSON.stringify(where); // the rows stand as they are, with the focus in them
  query = { ...query, where, page: 0 };
  search();
}

function showFacts() {
  const total = facts.corpora.reduce((sum, corpus) => sum + corpus.rows, 0);
  byId("facts").textContent = `${total.toLocaleString("en")} items of ${facts.spaces.map((space) => space.name).join(", ")}. ` +
    `Ask with ${facts.modalities.map((modality) => `a ${ONE[modality]}`).join(", ")}.`;
  const kinds = MODALITIES.filter((modality) => facts.corpora.some((corpus) => corpus.modality === modality));
  byId("targets").replaceChildren(...kinds.map((kind) => make("label", { className: "switch" },
    make("input", { type: "checkbox", value: kind, checked: isTarget(kind), change: targetsChanged }), mark(kind), MANY[kind])));
  byId("file").accept = accepted(facts.modalities);
  byId("record").hidden = !facts.modalities.includes("audio");
  byId("words").hidden = !facts.modalities.includes("text");
  byId("add-filter").disabled = !facts.columns.length;
}

const isTarget = (modality) => !query.targets || query.targets.includes(modality);

function targetsChanged() {
  const boxes = [...byId("targets").querySelectorAll("input")];
  const on = boxes.filter((box) => box.checked).map((box) => box.value);
  query = { ...query, targets: on.length && on.length < boxes.length ? on : null, page: 0 };
  search();
}

// Listening

byId("words").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (!text) return byId("text").focus();
  give({ modality: "text", text, weight: 1 });
  byId("text").select();
});

byId("file").addEventListener("change", async () => {
  await giveFiles([...byId("file").files]);
  byId("file").value = ""; // so that the same file can be chosen again
});

let recording = null;
byId("record").addEventListener("click", async () => {
  if (recording) return recording.stop();
  try {
    recording = await startRecording();
    recordingState(true);
    const file = await recording.done;
    await giveFiles([file]);
  } catch (error) {
    tell(error.message);
  }
  recording = null;
  recordingState(false);
});

function recordingState(now) {
  byId("record").setAttribute("aria-pressed", String(now));
  byId("record").textContent = now ? "Stop recording" : "Record a sound";
}

for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    byId("curtain").hidden = false;
  });
}
addEventListener("dragleave", (event) => event.relatedTarget === null && (byId("curtain").hidden = true));
addEventListener("drop", (event) => {
  byId("curtain").hidden = true;
  if (!event.dataTransfer?.files.length) return;
  event.preventDefault();
  giveFiles([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => event.clipboardData?.files.length && giveFiles([...event.clipboardData.files]));

for (const name of Object.keys(SWITCHES)) {
  byId(name).addEventListener("change", () => {
    query = { ...query, [name]: byId(name).checked, page: 0 };
    search();
  });
}
byId("limit").addEventListener("change", () => {
  query = { ...query, limit: Number(byId("limit").value), page: 0 };
  search();
});
byId("turning").checked = isTurning();
byId("turning").addEventListener("change", () => setTurning(byId("turning").checked));
byId("add-filter").addEventListener("click", () => {
  const row = filterRow("");
  byId("filters").append(row);
  row.firstChild.focus();
});
for (const [id, by] of [["previous", -1], ["next", 1]]) {
  byId(id).addEventListener("click", async () => {
    query = { ...query, page: Math.max(0, query.page + by) };
    await search();
    byId("results").focus();
  });
}
byId("copy-link").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    byId("copied").textContent = "Copied.";
  } catch {
    byId("copied").textContent = "Not copied: the address of this page is the link.";
  }
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the query
  byId("results").focus();
  byId("results").scrollIntoView();
});
addEventListener("popstate", () => restore());

// Beginning

/** The query of the address, else an example: the first item that is quickly understood. */
function restore() {
  const found = queryOf(location.hash);
  query = found ?? { ...emptyQuery(), parts: example() };
  const message = found || location.hash.length < 2 ? "" : "This link is not whole: copy it again. Until then, here is an example.";
  return search({ remember: false, message });
}

function example() {
  let first = 0; // items are numbered corpus by corpus
  const corpora = facts.corpora.map((corpus) => ({ ...corpus, first: (first += corpus.rows) - corpus.rows }));
  const firstOf = (kind) => corpora.find((each) => each.modality === kind && each.rows);
  const corpus = ["audio", "text", "image", "point_cloud"].map(firstOf).find(Boolean);
  return corpus ? [{ modality: corpus.modality, item: corpus.first, weight: 1 }] : [];
}

async function begin() {
  try {
    facts = await ask("index", "/api/index");
    const shown = restore();
    showFacts();
    await shown;
    const map = await ask("map", "/api/map");
    if (map) setMap(map, (hit) => open(hit, false));
  } catch (error) {
    tell(error.message);
    byId("status").textContent = "";
    busy(false);
  }
}

begin();
