// Rankings as galleries: each has its own scale, so each has its own heading.

import { cloudCanvas } from "./clouds.js";
import { byId, headingOf, make, mark, MODALITIES, nameOf, ONE, scaleOf, short } from "./words.js";

const CLOUD_POINTS = 1024; // enough for a card

/** Show rankings. `act` has `like(hit)`, `open(hit, where)` and `canLocate(hit)`. */
export function showRankings(rankings, { offset, corrected, act }) {
  const order = (ranking) => (MODALITIES.indexOf(ranking.modality) + 10) % 10;
  const sorted = [...rankings].sort((a, b) => order(a) - order(b));
  const galleries = sorted.map((ranking, number) => gallery(ranking, number, sorted, offset, corrected, act));
  byId("rankings").replaceChildren(...galleries);
}

function gallery(ranking, number, all, offset, corrected, act) {
  const id = `ranking-${number}`;
  const cards = ranking.hits.map((hit) => card(hit, act));
  const list = make("ol", { className: `hits ${ranking.modality}`, start: offset + 1 }, ...cards);
  const said = { "data-modality": ranking.modality, "data-scale": ranking.scale };
  return make("section", { className: "ranking", "aria-labelledby": id, ...said },
    make("h3", { id }, MODALITIES.includes(ranking.modality) ? mark(ranking.modality) : null, headingOf(ranking, all)),
    make("p", { className: "soft" }, scaleOf(ranking, corrected)),
    ranking.hits.length ? list : make("p", {}, offset ? "No more items." : "No item fits the filters."));
}

function card(hit, act) {
  const name = nameOf(hit);
  const button = (words, label, click) =>
    make("button", { type: "button", className: "plain", textContent: words, "aria-label": label, click });
  const like = button("More like this", `More like this: ${name}`, () => act.like(hit));
  const where = act.canLocate(hit) ? button("Where is it?", `Where is it? In ${name}`, () => act.open(hit, true)) : null;
  const details = button(short(hit.id), `${short(hit.id)}: details of ${name}`, () => act.open(hit, false));
  details.classList.add("id");
  const twins = hit.duplicates?.length ? make("span", { className: "soft" }, `and ${hit.duplicates.length} like it`) : null;
  return make("li", { className: "hit", "data-item": hit.item },
    media(hit, name, act),
    make("div", { className: "caption" }, mark(hit.modality),
      details, make("span", { className: "cosine" }, `cosine ${hit.cosine.toFixed(3)}`), twins),
    make("div", { className: "actions" }, like, where));
}

function media(hit, name, act) {
  if (hit.modality === "image" && hit.thumbnail_url) {
    const open = { type: "button", className: "picture", "aria-label": `Open ${name}`, click: () => act.open(hit, false) };
    return make("button", open, image(hit.thumbnail_url, ""));
  }
  return plainMedia(hit, name, CLOUD_POINTS);
}

/** A player, a cloud or a text; what cannot be shown says so. */
export function plainMedia(hit, name, points) {
  if (hit.modality === "audio" && hit.media_url) {
    return make("audio", { controls: true, preload: "none", src: hit.media_url, "aria-label": name });
  }
  if (hit.modality === "point_cloud" && hit.points_url) return cloudCanvas(hit.points_url, name, points);
  if (hit.text) return make("blockquote", {}, hit.text);
  return make("p", { className: "soft" }, `${ONE[hit.modality]} without a file here`);
}

/** An image; tiny ones are enlarged without blur, to `wide` pixels if that is given. */
export function image(src, alt, wide = null) {
  const found = make("img", { src, alt, decoding: "async" });
  found.addEventListener("load", () => {
    const most = Math.max(found.naturalWidth, found.naturalHeight);
    found.classList.toggle("tiny", most < 200);
    if (wide && most < wide) found.style.width = `${(wide * found.naturalWidth) / most}px`; // only the width: the ratio stays
  });
  found.addEventListener("error", () => found.replaceWith(make("span", { className: "soft" }, "The picture could not be read.")));
  return found;
}
