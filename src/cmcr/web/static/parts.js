// The parts of a query as a list: what each is, its weight, and a button that takes it out.

import { play } from "./inputs.js";
import { byId, make, mark, ONE, quoted, short } from "./words.js";

const previews = new Map(); // of uploads of this visit, by their hash
let shown = []; // parts and their titles, as they stand on the page

export const keepPreview = (hash, preview) => previews.set(hash, preview);

export function titleOf(part) {
  if (part.text !== undefined) return quoted(part.text);
  if (part.item !== undefined) return part.name ?? `${ONE[part.modality]}, item ${part.item}`;
  return part.name ?? `your ${ONE[part.modality]}`;
}

/** Show the parts; `onChange` is called after a weight was changed or a part removed. */
export function showParts(parts, onChange) {
  byId("query").hidden = parts.length === 0;
  byId("weights-hint").hidden = parts.length < 2 && parts.every((part) => (part.weight ?? 1) === 1);
  const same = shown.length === parts.length && parts.every((part, at) => shown[at][0] === part && shown[at][1] === titleOf(part));
  if (same) return; // a row that is built again would lose the focus
  shown = parts.map((part) => [part, titleOf(part)]);
  byId("parts").replaceChildren(...parts.map((part, position) => row(part, position, parts, onChange)));
}

function row(part, position, parts, onChange) {
  const title = titleOf(part);
  const weight = make("input", {
    type: "number", step: "any", value: String(part.weight ?? 1), "aria-label": `Weight of ${title}`, required: true,
    change: () => {
      const wanted = weight.valueAsNumber;
      const usable = Number.isFinite(wanted) && wanted !== 0;
      weight.setCustomValidity(usable ? "" : "A number above or below 0.");
      if (!weight.reportValidity()) return;
      part.weight = wanted;
      onChange();
    },
  });
  const remove = make("button", {
    type: "button", textContent: "Remove", className: "plain remove", "aria-label": `Remove ${title}`,
    click: () => {
      parts.splice(position, 1);
      onChange();
      (byId("parts").querySelectorAll("button.remove")[Math.min(position, parts.length - 1)] ?? byId("text")).focus();
    },
  });
  return make("li", {}, picture(part, title), make("span", { className: "title" }, mark(part.modality), title),
    make("label", { className: "weight" }, "weight ", weight), remove);
}

function picture(part, title) {
  if (part.item !== undefined) {
    if (part.modality === "image") return make("img", { src: `/api/items/${part.item}/thumbnail`, alt: "", className: "small" });
    if (part.modality === "audio") return player(title, () => new Audio(`/api/items/${part.item}/media`).play());
  }
  const preview = previews.get(part.upload);
  if (preview?.bitmap) {
    const { width, height } = preview.bitmap;
    const canvas = make("canvas", { className: "small", width, height, role: "img", "aria-label": `Your picture ${short(title)}` });
    canvas.getContext("2d").drawImage(preview.bitmap, 0, 0);
    return canvas;
  }
  return preview?.sound ? player(title, () => play(preview.sound)) : null;
}

const player = (title, click) =>
  make("button", { type: "button", className: "plain", textContent: "Play", "aria-label": `Play ${title}`, click });
