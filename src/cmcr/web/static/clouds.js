// Point clouds on a canvas: fetched and turned only while they are seen, by hand with the pointer or the arrow keys.

import { pointsOf } from "./api.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");
const SPEED = 0.0006; // radians a millisecond
const FRAME_MS = 30; // twice as often would cost twice as much and look the same
const clouds = new WeakMap();
const visible = new Set();
let turning = !still.matches;
let last = null;

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting || !target.isConnected) visible.delete(target);
    else {
      visible.add(target);
      fill(target);
    }
  }
  if (visible.size && last === null) requestAnimationFrame(step);
}, { rootMargin: "80px" });

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => visible.forEach(draw));

export const isTurning = () => turning;

export function setTurning(wanted) {
  turning = wanted;
  if (last === null) requestAnimationFrame(step);
}

/** Make a canvas that shows the points at an address, at most `most` of them. */
export function cloudCanvas(address, label, most) {
  const canvas = document.createElement("canvas");
  canvas.className = "cloud";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${label}. Arrow keys turn it.`);
  clouds.set(canvas, { address, most, points: null, turn: 0.4, tilt: 0.25, held: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    clouds.get(canvas).held = true;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (clouds.get(canvas).held = false));
  canvas.addEventListener("pointermove", (event) => clouds.get(canvas).held && turned(canvas, event.movementX / 60, event.movementY / 60));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] }[event.key];
    if (!by) return;
    event.preventDefault();
    turned(canvas, ...by);
  });
  watcher.observe(canvas);
  return canvas;
}

function turned(canvas, turn, tilt) {
  const cloud = clouds.get(canvas);
  cloud.turn += turn;
  cloud.tilt = Math.max(-1.5, Math.min(1.5, cloud.tilt + tilt));
  draw(canvas);
}

async function fill(canvas) {
  const cloud = clouds.get(canvas);
  if (cloud.points) return draw(canvas);
  cloud.points = new Float32Array(0); // asked for once
  try {
    Object.assign(cloud, fitted(await pointsOf(cloud.address), cloud.most));
    draw(canvas);
  } catch (error) {
    canvas.setAttribute("aria-label", `The points could not be read: ${error.message}`);
    canvas.classList.add("broken");
  }
}

/** Take every so-manieth point, centred, with how far they reach sideways at any turn, and up. */
function fitted(flat, most) {
  const count = Math.floor(flat.length / 3);
  const stride = Math.max(1, Math.ceil(count / most));
  const kept = new Float32Array(3 * Math.ceil(count / stride));
  for (let i = 0; i < kept.length; i++) kept[i] = flat[3 * stride * Math.floor(i / 3) + (i % 3)];
  const mean = [0, 0, 0];
  kept.forEach((value, i) => (mean[i % 3] += (3 * value) / kept.length));
  let [wide, high] = [1e-9, 1e-9];
  for (let i = 0; i < kept.length; i += 3) {
    for (let axis = 0; axis < 3; axis++) kept[i + axis] -= mean[axis];
    wide = Math.max(wide, Math.hypot(kept[i], kept[i + 2]));
    high = Math.max(high, Math.abs(kept[i + 1]));
  }
  return { points: kept, wide, high };
}

function draw(canvas) {
  const { points, wide, high, turn, tilt } = clouds.get(canvas);
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * dense), Math.round(canvas.clientHeight * dense)];
  if (!points?.length || !width) return;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = getComputedStyle(canvas).color;
  const [ct, st, ci, si] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  const scale = 0.48 * Math.min(width / wide, height / Math.hypot(high, 0.3 * wide));
  const dot = Math.max(1.2, width / 110);
  for (let i = 0; i < points.length; i += 3) {
    const x = ct * points[i] + st * points[i + 2];
    const deep = ct * points[i + 2] - st * points[i];
    const y = ci * points[i + 1] - si * deep;
    const near = (si * points[i + 1] + ci * deep) / wide;
    const size = dot * (1 + 0.35 * near);
    pen.globalAlpha = Math.min(1, 0.62 + 0.38 * near);
    pen.fillRect(width / 2 + scale * x - size / 2, height / 2 - scale * y - size / 2, size, size);
  }
}

function step(now) {
  if (last !== null && now - last < FRAME_MS) return void requestAnimationFrame(step);
  const passed = last === null ? 0 : Math.min(100, now - last);
  for (const canvas of visible) {
    if (!canvas.isConnected) {
      visible.delete(canvas);
      watcher.unobserve(canvas);
    } else if (turning && !clouds.get(canvas).held && document.activeElement !== canvas) {
      turned(canvas, passed * SPEED, 0);
    }
  }
  last = turning && visible.size ? now : null;
  if (last !== null) requestAnimationFrame(step);
}
