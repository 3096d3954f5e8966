// One item, large, in a dialog: its media, its row of the item table, and where in a picture the query is.

import { post } from "./api.js";
import { image, plainMedia } from "./results.js";
import { byId, make, nameOf } from "./words.js";

// Dark to bright, evenly for the eye; readable without colour vision because lightness alone tells the order.
const RAMP = [[30, 12, 70], [90, 30, 120], [170, 50, 90], [235, 110, 40], [252, 225, 110]];

const dialog = byId("item");
byId("item-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => byId("item-body").replaceChildren());

/** Open an item; with `parts`, the picture can be asked where they are, and with `locate` it is asked at once. */
export function openItem(hit, { like, parts, locate }) {
  const name = nameOf(hit);
  byId("item-title").textContent = name;
  const stage = make("div", { className: "stage large" });
  const told = make("div", { className: "told", "aria-live": "polite" });
  const buttons = make("div", { className: "row" },
    make("button", { type: "button", textContent: "More like this", click: () => { dialog.close(); like(hit); } }));
  if (hit.modality === "image" && hit.media_url) {
    stage.append(image(hit.media_url, name, 560));
    if (parts) {
      const where = make("button", { type: "button", textContent: "Where is it?", click: () => showHeat(hit, parts, stage, told, where) });
      buttons.append(where);
    }
  } else stage.append(plainMedia(hit, name, 4096));
  if (hit.media_url) buttons.append(make("a", { href: hit.media_url, target: "_blank", rel: "noopener", textContent: "The file itself" }));
  byId("item-body").replaceChildren(stage, told, buttons, facts(hit));
  if (!dialog.open) dialog.showModal();
  if (locate && parts) showHeat(hit, parts, stage, told, buttons.querySelectorAll("button")[1]);
}

function facts(hit) {
  const rows = [["id", hit.id], ["space", hit.space], ...(hit.text && hit.modality !== "text" ? [["text", hit.text]] : []),
    ...Object.entries(hit.columns ?? {}), ...(hit.duplicates?.length ? [["near-duplicates", `items ${hit.duplicates.join(", ")}`]] : [])];
  return make("dl", {}, ...rows.filter(([, value]) => value !== null && value !== "")
    .flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, String(value))]));
}

async function showHeat(hit, parts, stage, told, button) {
  button.disabled = true;
  told.replaceChildren(make("p", { className: "soft" }, "Looking at each part of the picture…"));
  try {
    const found = await post("heatmap", "/api/heatmap", { item: hit.item, parts });
    if (!found) return;
    const values = found.cosines.flat();
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const at = values.indexOf(high);
    const [row, column] = [Math.floor(at / found.columns), at % found.columns];
    stage.querySelector("canvas.heat")?.remove();
    stage.append(overlay(found, low, high));
    told.replaceChildren(legend(low, high, found.scale),
      make("p", {}, `Nearest to the query: row ${row + 1} of ${found.rows}, column ${column + 1} of ${found.columns}.`));
  } catch (error) {
    button.disabled = false;
    told.replaceChildren(make("p", { className: "problem", role: "alert" }, error.message));
  }
}

function overlay(found, low, high) {
  const cells = make("canvas", { width: found.columns, height: found.rows });
  const pixels = new ImageData(found.columns, found.rows);
  found.cosines.flat().forEach((value, at) => {
    const share = high > low ? (value - low) / (high - low) : 0;
    pixels.data.set([...colour(share), 30 + 150 * share], 4 * at);
  });
  cells.getContext("2d").putImageData(pixels, 0, 0);
  const smooth = make("canvas", { className: "heat", width: 24 * found.columns, height: 24 * found.rows, "aria-hidden": "true" });
  const pen = smooth.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(cells, 0, 0, smooth.width, smooth.height);
  return smooth;
}

function legend(low, high, scale) {
  const bar = make("canvas", { width: 120, height: 1, className: "ramp", "aria-hidden": "true" });
  const pen = bar.getContext("2d");
  for (let at = 0; at < 120; at++) {
    pen.fillStyle = `rgb(${colour(at / 119).join(" ")})`;
    pen.fillRect(at, 0, 1, 1);
  }
  const heat = () => byId("item-body").querySelector("canvas.heat");
  const hide = make("input", { type: "checkbox", checked: true, change: () => (heat().hidden = !hide.checked) });
  const of = scale === "connection" ? "the connection" : scale;
  return make("div", { className: "row" },
    make("span", {}, `cosine of ${of}: ${low.toFixed(3)}`), bar, make("span", {}, high.toFixed(3)),
    make("label", { className: "switch" }, hide, " Show the heat map"));
}

function colour(share) {
  const at = share * (RAMP.length - 1);
  const [from, to] = [RAMP[Math.floor(at)], RAMP[Math.ceil(at)]];
  return from.map((value, channel) => Math.round(value + (to[channel] - value) * (at % 1)));
}
