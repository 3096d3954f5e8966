// What things are called on the page, and small helpers to build it. Data enters as text only, never as markup.

export const MODALITIES = ["image", "text", "audio", "point_cloud"];
export const ONE = { image: "picture", text: "text", audio: "sound", point_cloud: "point cloud" };
export const MANY = { image: "Pictures", text: "Texts", audio: "Sounds", point_cloud: "Point clouds", all: "Everything" };

/** Make an element: properties are set as such, `data-` and `aria-` names as attributes, functions as listeners. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (/^(aria|data)-|^(role|for)$/.test(name)) element.setAttribute(name, value);
    else if (value !== undefined && value !== null) element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** The mark of a modality, by colour and shape: the same in headings, in the legend and on the map. */
export const mark = (modality) => make("span", { className: `mark ${modality}`, "aria-hidden": "true" });

export function headingOf(ranking, others) {
  const own = ranking.scale === ranking.space;
  const twins = others.filter((each) => each.modality === ranking.modality && (each.scale === each.space) === own);
  const things = MANY[ranking.modality] ?? ranking.modality;
  if (own) return `${things}, by ${ranking.space} itself`;
  return `${things}${twins.length > 1 ? ` of ${ranking.space}` : ""}, through the connection`;
}

export function scaleOf(ranking, corrected) {
  const scale = ranking.scale === ranking.space ? `cosines of ${ranking.space}` : `cosines of the ${ranking.scale}`;
  return [
    `Best of ${ranking.items.toLocaleString("en")}`,
    scale,
    corrected ? "ranked by hub correction" : null,
    ranking.approximate ? "approximate: an item may be missing" : null,
  ].filter(Boolean).join(" · ");
}

/** The last part of an id, which may be a path. */
export const short = (id) => String(id).split("/").pop();

/** A text in quotes, cut where it is too long for a title. */
export const quoted = (text) => `“${text.length > 80 ? `${text.slice(0, 79)}…` : text}”`;

export const nameOf = (hit) =>
  hit.modality === "text" && hit.text ? quoted(hit.text) : `${ONE[hit.modality] ?? "item"} ${short(hit.id)}`;
