// The corpus as points on two axes: a colour and a shape for each modality, the results outlined, the query a cross.

import { itemOf } from "./api.js";
import { byId, make, mark, MANY, nameOf } from "./words.js";

const REACH = 14; // pixels within which the pointer finds a point
const canvas = byId("map");
const told = byId("map-text");
const known = new Map(); // hits by item, as they were asked for
let points = []; // {item, modality, x, y} with x and y in 0..1
let query = null;
let shown = new Set();
let chosen = -1;
let frame = [0, 0, 1, 1];
let waiting = false;
let open = () => {};

/** Take in what /api/map gives; `onOpen` opens an item. */
export function setMap(map, onOpen) {
  open = onOpen;
  points = map.corpora.flatMap(({ space, modality, items, points: places }) =>
    items.map((item, number) => ({ item, modality, space, raw: places[number] })));
  const axis = (which, best) => points.reduce((found, each) => best(found, each.raw[which]), points[0]?.raw[which] ?? 0);
  frame = [axis(0, Math.min), axis(1, Math.min), axis(0, Math.max), axis(1, Math.max)];
  for (const each of points) [each.x, each.y] = placed(each.raw);
  points.sort((a, b) => a.x - b.x); // the order of the arrow keys
  const kinds = [...new Set(map.corpora.map((corpus) => corpus.modality))];
  byId("legend").replaceChildren(...kinds.map((kind) => make("li", {}, mark(kind), MANY[kind] ?? kind)),
    make("li", {}, make("span", { className: "mark query", "aria-hidden": "true" }), "The query"));
  canvas.setAttribute("aria-label", `Map of ${points.length} items. Arrow keys step from item to item, Enter opens one.`);
  redraw();
}

export function setQuery(point, items) {
  query = point;
  shown = new Set(items);
  redraw();
}

const placed = ([x, y]) => [(x - frame[0]) / (frame[2] - frame[0] || 1), 1 - (y - frame[1]) / (frame[3] - frame[1] || 1)];

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

function draw() {
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  canvas.width = width * dense;
  canvas.height = height * dense;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  const style = getComputedStyle(canvas);
  const ink = style.color;
  const size = points.length > 2000 ? 2.5 : 4;
  for (const each of points) {
    pen.globalAlpha = shown.has(each.item) ? 1 : 0.55;
    pen.fillStyle = style.getPropertyValue(`--${each.modality.replace("_", "-")}`) || ink;
    outline(pen, each, shown.has(each.item) ? size * 1.7 : size);
    pen.fill();
    if (!shown.has(each.item)) continue;
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    pen.stroke();
  }
  pen.globalAlpha = 1;
  if (query) cross(pen, at(placed(query)), ink, style.getPropertyValue("--card"));
  if (points[chosen]) {
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(...at([points[chosen].x, points[chosen].y]), 10, 0, 7);
    pen.stroke();
  }
}

const at = ([x, y]) => [12 + x * (canvas.clientWidth - 24), 12 + y * (canvas.clientHeight - 24)];

function outline(pen, each, size) {
  const [x, y] = at([each.x, each.y]);
  pen.beginPath();
  if (each.modality === "image") pen.arc(x, y, size, 0, 7);
  else if (each.modality === "text") pen.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
  else {
    const corners = each.modality === "audio" ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.35], [1.2, 0], [0, 1.35], [-1.2, 0]];
    corners.forEach(([dx, dy], number) => pen[number ? "lineTo" : "moveTo"](x + dx * size, y + dy * size));
    pen.closePath();
  }
}

function cross(pen, [x, y], ink, ground) {
  for (const [colour, width] of [[ground, 7], [ink, 3]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    for (const [dx, dy] of [[1, 1], [1, -1]]) {
      pen.moveTo(x - 9 * dx, y - 9 * dy);
      pen.lineTo(x + 9 * dx, y + 9 * dy);
    }
    pen.stroke();
  }
}

async function choose(number) {
  if (number === chosen) return;
  chosen = number;
  redraw();
  const each = points[number];
  if (!each) return void (told.textContent = "");
  try {
    if (!known.has(each.item)) known.set(each.item, await itemOf(each.item));
    if (number === chosen) told.textContent = `${nameOf(known.get(each.item))}, ${each.space}`;
  } catch (error) {
    told.textContent = error.message;
  }
}

function nearest(event) {
  const box = canvas.getBoundingClientRect();
  let [best, found] = [REACH, -1];
  points.forEach((each, number) => {
    const [x, y] = at([each.x, each.y]);
    const far = Math.hypot(x - (event.clientX - box.left), y - (event.clientY - box.top));
    if (far < best) [best, found] = [far, number];
  });
  return found;
}

canvas.addEventListener("pointermove", (event) => {
  const found = nearest(event);
  canvas.classList.toggle("over", found >= 0);
  if (found >= 0) choose(found);
});
canvas.addEventListener("click", (event) => {
  const found = nearest(event);
  if (found >= 0) openPoint(found);
});
canvas.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (by && points.length) {
    event.preventDefault();
    choose((chosen + by + points.length) % points.length);
  } else if (event.key === "Enter" && points[chosen]) {
    event.preventDefault(); // else the same key would press the button that the dialog puts the focus on
    openPoint(chosen);
  }
});

async function openPoint(number) {
  await choose(number);
  const hit = known.get(points[number].item);
  if (hit) open(hit);
}

new ResizeObserver(redraw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
