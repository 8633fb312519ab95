// Scores of all completed jobs as series: one for each family of models, task and metric.

import { make, makeSvg } from "./dom.js";
import { ago, family, interval, model, score } from "./text.js";

const WIDTH = 720, HEIGHT = 220, LEFT = 62, RIGHT = 12, TOP = 12, BOTTOM = 26;

export function series(jobs) {
  const found = new Map();
  const byTime = [...jobs].sort((a, b) => a.completed_at.localeCompare(b.completed_at));
  for (const job of byTime) {
    for (const [task, values] of Object.entries(job.result?.results ?? {})) {
      for (const [metric, value] of Object.entries(values)) {
        if (typeof value !== "number" || metric.includes("_stderr,")) continue;
        add(found, job, task, metric, value);
      }
    }
  }
  return [...found.values()].sort((a, b) => b.points.at(-1).when.localeCompare(a.points.at(-1).when) || a.key.localeCompare(b.key));
}

function add(found, job, task, metric, value) {
  const name = family(model(job));
  const key = JSON.stringify([name, task, metric]);
  if (!found.has(key)) found.set(key, { key, model: name, task, metric, points: [] });
  const range = job.result.intervals?.[task]?.[metric] ?? null;
  found.get(key).points.push({ value, range, when: job.completed_at, model: model(job), job: job.job_id });
}

export function chart(line) {
  const points = line.points.slice(-100);
  const all = points.flatMap((point) => [point.value, ...(point.range ?? [])]);
  const low = Math.min(...all), high = Math.max(...all), span = high - low || Math.abs(high) || 1;
  const x = (place) => LEFT + (points.length === 1 ? 0.5 : place / (points.length - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low + span * 0.05) / (span * 1.1)) * (HEIGHT - TOP - BOTTOM);
  const title = `${line.metric} of ${line.task}, ${points.length} runs of ${line.model}`;
  const svg = makeSvg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(
      makeSvg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      makeSvg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, score(value)),
    );
  }
  svg.append(makeSvg("polyline", { class: "line", points: points.map((point, place) => `${x(place)},${y(point.value)}`).join(" ") }));
  points.forEach((point, place) => svg.append(...mark(point, x(place), y)));
  svg.append(
    makeSvg("text", { x: LEFT, y: HEIGHT - 6 }, points[0].when.slice(0, 10)),
    makeSvg("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, points.at(-1).when.slice(0, 10)),
  );
  return svg;
}

function mark(point, x, y) {
  const label = `${point.model}: ${score(point.value)} (${interval(point.range)})`;
  const dot = makeSvg("circle", { cx: x, cy: y(point.value), r: 3.5 }, makeSvg("title", {}, label));
  if (!point.range) return [dot];
  return [makeSvg("line", { class: "interval", x1: x, x2: x, y1: y(point.range[0]), y2: y(point.range[1]) }), dot];
}

export function table(line) {
  const rows = line.points.slice(-20).reverse().map((point) => make("tr", {},
    make("th", { scope: "row" }, point.model),
    make("td", { class: "num" }, score(point.value)),
    make("td", { class: "num" }, interval(point.range)),
    make("td", { title: point.when }, ago(point.when)),
    make("td", { class: "soft" }, point.job),
  ));
  const names = ["Model", "Score", "95 % interval", "When", "Job"];
  const head = make("tr", {}, ...names.map((name, place) => make("th", { scope: "col", class: place === 1 || place === 2 ? "num" : null }, name)));
  return make("table", {}, make("caption", { class: "visually-hidden" }, "The last runs"), make("thead", {}, head), make("tbody", {}, ...rows));
}
