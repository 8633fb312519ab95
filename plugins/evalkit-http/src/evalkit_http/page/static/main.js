// Ask the server again and again, and show what it says.

import { askJson, token, TokenNeeded, Unreachable } from "./api.js";
import { byId } from "./dom.js";
import { drawResults, onProblem, showCounts, showEnded, showQueue, showResults, showRunning, showTimes } from "./views.js";

const EVERY = 1000, WHEN_AWAY = 5000, SHORT = 50, FIRST = 10, KEPT = 1000, ENDED = 20;
let before = "";
let firstBefore = "", queuedBefore = [];
let timer = 0;

async function look() {
  const queue = await askJson("queue");
  const [running, queued] = await Promise.all([askJson("jobs?status=running&limit=100"), queuedJobs(queue)]);
  showCounts(queue);
  showRunning(running.jobs.reverse());
  showQueue(queued, queue.queue_size);
  const ended = JSON.stringify([queue.completed_jobs, queue.failed_jobs, queue.cancelled_jobs]);
  if (ended === before) return;
  await showTheEnded();
  before = ended;
}

// A short queue is one question. Of a long one the first jobs are asked for, when they have changed.
async function queuedJobs(queue) {
  if (queue.queue_size <= SHORT) {
    const { jobs } = queue.queue_size ? await askJson(`jobs?status=queued&limit=${SHORT}`) : { jobs: [] };
    return jobs.sort((a, b) => a.position_in_queue - b.position_in_queue);
  }
  const first = queue.queued_jobs.slice(0, FIRST);
  if (JSON.stringify(first) !== firstBefore) {
    queuedBefore = (await Promise.all(first.map((id) => askJson(`jobs/${id}`).catch(gone)))).filter((job) => job?.status === "queued");
    firstBefore = JSON.stringify(first);
  }
  return queuedBefore;
}

// It may have been forgotten between the two questions.
function gone(error) {
  if (error instanceof TokenNeeded || error instanceof Unreachable) throw error;
  return null;
}

async function showTheEnded() {
  const completed = await askJson(`jobs?status=completed&limit=${KEPT}`);
  const others = await Promise.all(["failed", "cancelled"].map((status) => askJson(`jobs?status=${status}&limit=${ENDED}`)));
  const all = [completed, ...others].flatMap((answer) => answer.jobs);
  showEnded(all.sort((a, b) => b.completed_at.localeCompare(a.completed_at)).slice(0, ENDED));
  showResults(completed.jobs);
}

async function lookForEver() {
  clearTimeout(timer);
  let wait = document.hidden ? WHEN_AWAY : EVERY;
  try {
    await look();
    showTimes();
    byId("problem").hidden = true;
    document.body.dataset.ready = "";
  } catch (error) {
    if (error instanceof TokenNeeded) return askForToken();
    problem(error);
    wait = WHEN_AWAY;
  }
  timer = setTimeout(lookForEver, wait);
}

function problem(error) {
  if (error instanceof TokenNeeded) return askForToken();
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
}

function askForToken() {
  clearTimeout(timer);
  byId("token-hint").textContent = token.get() ? "The server does not know that token." : "It is kept in this tab until you close it.";
  token.forget();
  byId("token").value = "";
  if (!byId("ask-token").open) byId("ask-token").showModal();
}

byId("ask-token").addEventListener("close", () => {
  const given = byId("token").value.trim();
  if (!given) return askForToken();
  token.set(given);
  byId("forget").hidden = false;
  byId("token").value = "";
  lookForEver();
});
byId("forget").addEventListener("click", () => { token.forget(); location.reload(); });
byId("forget").hidden = !token.get();
byId("filters").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["filter", "task"]) byId(id).addEventListener("input", drawResults);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !byId("ask-token").open) lookForEver(); });
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, dialog");
  if (event.key === "/" && !typing) { event.preventDefault(); byId("filter").focus(); }
  if (event.key === "Escape" && event.target === byId("filter")) { byId("filter").value = ""; drawResults(); }
});
onProblem(problem);
lookForEver();
