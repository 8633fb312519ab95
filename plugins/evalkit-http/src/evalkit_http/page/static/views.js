// Each part of the page from what the server says.

import { ask, save, token } from "./api.js";
import { byId, fill, make } from "./dom.js";
import { chart, series, table } from "./history.js";
import { ago, duration, interval, model, score, tasks } from "./text.js";

export let report = (error) => { throw error; };
export const onProblem = (handler) => { report = handler; };
const attempt = (action) => async () => { try { await action(); } catch (error) { report(error); } };

const time = (iso, form = "ago") => make("time", { datetime: iso, title: iso, "data-form": form }, timeText(iso, form));
const timeText = (iso, form) => (form === "ago" ? ago(iso) : duration(iso, new Date().toISOString()));

export function showTimes() {
  for (const element of document.querySelectorAll("time[data-form]")) {
    const text = timeText(element.dateTime, element.dataset.form);
    if (element.textContent !== text) element.textContent = text;
  }
}

let lines = [];
let chosen = null;

export function showCounts(queue) {
  const parts = [["running", queue.running_jobs.length], ["waiting", queue.queue_size], ["completed", queue.completed_jobs], ["failed", queue.failed_jobs]];
  const text = parts.map(([name, count]) => `${count} ${name}`).join(" · ");
  // Only a change is announced.
  if (byId("counts").textContent !== text) byId("counts").textContent = text;
}

export function showRunning(jobs) {
  fill(byId("running"), jobs.length ? jobs : [{ job_id: "" }], (job) => job.job_id, runningItem);
}

function runningItem(job) {
  if (!job.job_id) return make("li", { class: "soft" }, "Nothing runs.");
  const done = job.progress;
  const label = done ? `${done.answered} of ${done.total} requests` : "starting";
  return make("li", {},
    make("div", {}, make("strong", {}, model(job)), " ", tasks(job)),
    cancelButton(job),
    make("div", { class: "soft" }, `${label} · for `, time(job.started_at, "for"), job.devices.length ? ` · ${job.devices.join(", ")}` : ""),
    make("div", {}, logButton(job)),
    make("progress", { "aria-label": `Progress of ${job.job_id}`, max: done?.total || 1, value: done ? done.answered : null }),
  );
}

export function showQueue(jobs, size) {
  const rows = jobs.length ? jobs : [{ job_id: "" }];
  const more = size > jobs.length ? [{ job_id: "more", count: size - jobs.length }] : [];
  fill(byId("queue").tBodies[0], [...rows, ...more], (job) => job.job_id, queueRow);
}

function queueRow(job) {
  if (!job.request) return make("tr", {}, make("td", { colspan: 7, class: "soft" }, job.count ? `and ${job.count} more` : "Nothing waits."));
  return make("tr", {},
    make("td", { class: "num" }, (job.position_in_queue ?? 0) + 1),
    make("th", { scope: "row" }, model(job)),
    make("td", {}, tasks(job)),
    make("td", { class: "num" }, job.priority),
    make("td", {}, time(job.created_at)),
    make("td", {}, job.reason ?? ""),
    make("td", {}, cancelButton(job)),
  );
}

function cancelButton(job) {
  const action = attempt(async () => {
    if (confirm(`Cancel job ${job.job_id}?`)) await ask(`jobs/${job.job_id}`, { method: "DELETE" });
  });
  return make("button", { type: "button", "aria-label": `Cancel ${job.job_id}`, onclick: action }, "Cancel");
}

export function showEnded(jobs) {
  fill(byId("ended").tBodies[0], jobs.length ? jobs : [{ job_id: "" }], (job) => job.job_id, endedRow);
}

function endedRow(job) {
  if (!job.job_id) return make("tr", {}, make("td", { colspan: 6, class: "soft" }, "No job has ended yet."));
  return make("tr", {},
    make("th", { scope: "row" }, job.job_id),
    make("td", { class: job.status }, job.status, job.error ? make("div", { class: "soft" }, job.error) : null),
    make("td", {}, model(job)),
    make("td", {}, tasks(job)),
    make("td", {}, time(job.completed_at)),
    make("td", { class: "files" }, ...files(job)),
  );
}

function files(job) {
  const found = [logButton(job)];
  if (job.status !== "completed" || job.kind !== "evaluate") return found;
  const path = `jobs/${job.job_id}`;
  found.push(fileLink("Report", `${path}/report`, `report-${job.job_id}.html`));
  for (const task of Object.keys(job.result?.["n-samples"] ?? {})) {
    if (job.request.log_samples !== false) found.push(fileLink(`Samples of ${task}`, `${path}/samples/${encodeURIComponent(task)}`, `samples_${task}.jsonl`));
  }
  return found;
}

function fileLink(label, path, name) {
  if (!token.get()) return make("a", { href: path, target: "_blank", rel: "noopener" }, label);
  return make("button", { type: "button", class: "plain", onclick: attempt(() => save(path, name)) }, label);
}

function logButton(job) {
  const action = attempt(async () => {
    byId("log-title").textContent = `Log of ${job.job_id}`;
    byId("log-text").textContent = (await (await ask(`jobs/${job.job_id}/log`)).text()) || "The log is empty.";
    byId("log-view").showModal();
  });
  return make("button", { type: "button", class: "plain", onclick: action }, "Log");
}

export function showResults(jobs) {
  lines = series(jobs);
  const known = [...new Set(lines.map((line) => line.task))].sort();
  fill(byId("task"), ["", ...known], (task) => task || "all", (task) => make("option", { value: task }, task || "all"));
  drawResults();
}

export function drawResults() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const task = byId("task").value;
  const fits = (line) => (!task || line.task === task) && words.every((word) => `${line.model} ${line.task} ${line.metric}`.toLowerCase().includes(word));
  const shown = lines.filter(fits);
  fill(byId("scores").tBodies[0], shown.length ? shown : [{ key: "", empty: lines.length === 0 }], (line) => line.key, scoreRow);
  const current = lines.find((line) => line.key === chosen);
  for (const row of byId("scores").tBodies[0].rows) row.ariaCurrent = row.dataset.key === chosen ? "true" : "false";
  if (current) drawHistory(current);
}

function scoreRow(line) {
  if (!line.key) return make("tr", {}, make("td", { colspan: 7, class: "soft" }, line.empty ? "No results yet." : "Nothing fits the filter."));
  const last = line.points.at(-1);
  const choose = () => { chosen = line.key; drawResults(); byId("history").scrollIntoView({ block: "nearest" }); };
  return make("tr", {},
    make("th", { scope: "row", title: last.model }, line.model),
    make("td", {}, line.task),
    make("td", {}, line.metric),
    make("td", { class: "num" }, score(last.value)),
    make("td", { class: "num" }, interval(last.range)),
    make("td", {}, make("button", { type: "button", class: "plain", onclick: choose, "aria-label": `History of ${line.metric} of ${line.task}, ${line.model}` }, `${line.points.length}: history`)),
    make("td", {}, time(last.when)),
  );
}

function drawHistory(line) {
  const says = JSON.stringify(line);
  if (byId("history").dataset.says === says) return;
  byId("history").dataset.says = says;
  byId("history").replaceChildren(make("h3", {}, `${line.metric} of ${line.task}: ${line.model}`), chart(line), make("div", { class: "wide" }, table(line)));
}
