// Questions to the server, with the token of this tab.

const KEY = "evalkit-token";

export class TokenNeeded extends Error {}
export class Unreachable extends Error {}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export async function ask(path, options = {}) {
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Unreachable("The server does not answer. This page keeps asking.");
  }
  if (answer.status === 401) throw new TokenNeeded();
  if (!answer.ok) throw new Error(await reason(answer));
  return answer;
}

export const askJson = async (path) => (await ask(path)).json();

async function reason(answer) {
  const text = await answer.text();
  try {
    const detail = JSON.parse(text).detail;
    return typeof detail === "string" ? detail : detail.map((problem) => problem.msg).join("; ");
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

// A link carries no token: with one, the file is fetched and saved.
export async function save(path, name) {
  const blob = await (await ask(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
