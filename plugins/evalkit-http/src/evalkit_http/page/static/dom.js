// Elements made of text only: nothing that a server or a model wrote is ever read as HTML.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

// Rows stay the same elements as long as they say the same, so that focus and selection survive an update.
export function fill(parent, items, key, build) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const says = JSON.stringify(item);
    const there = old.get(key(item));
    if (there && there.dataset.says === says) return there;
    const made = build(item);
    made.dataset.key = key(item);
    made.dataset.says = says;
    return made;
  });
  const focused = parent.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : null;
  const same = wanted.length === parent.children.length && wanted.every((child, place) => parent.children[place] === child);
  if (same) return;
  parent.replaceChildren(...wanted);
  if (focused) parent.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.querySelector("button, a")?.focus();
}
