// Numbers, times and names as people read them.

export function score(value) {
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  return size !== 0 && (size >= 1e5 || size < 1e-4) ? value.toExponential(2) : Number(value.toPrecision(4)).toString();
}

export const interval = (pair) => (pair ? `${score(pair[0])} – ${score(pair[1])}` : "–");

export function ago(iso, now = Date.now()) {
  const seconds = Math.max(0, (now - Date.parse(iso)) / 1000);
  if (seconds < 60) return "just now";
  for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
  }
}

export function duration(from, to) {
  const seconds = Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1000));
  const minutes = Math.floor(seconds / 60);
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

const NAMES = ["pretrained", "model", "path", "model_name", "checkpoint_path"];

export function model(job) {
  const given = { ...job.request.model_args, ...(job.kind === "merge" ? job.request : {}) };
  const name = NAMES.find((key) => typeof given[key] === "string");
  return name ? given[name] : job.request.model ?? job.kind;
}

export const tasks = (job) => (job.request.tasks ?? [job.kind]).join(", ");

// Checkpoints of one training are one line of history: their names differ in a step or epoch.
export const family = (name) => name.replace(/((?:epoch|step|checkpoint|ckpt|iter|iteration)[-_=]?)\d+/gi, "$1N");
