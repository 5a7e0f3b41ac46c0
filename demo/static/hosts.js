// The hosts: side by side, this one first, each with its workers and what each of another host has received last.
//
// Law: a host is its id, and a worker there its generation; names and pids are only shown, and may be equal.

import { byId, fromTemplate, hueOf, paint } from "./look.js";

const STATES = { here: "this host", connected: "connected", suspect: "not heard for 3 s" };

const place = byId("hosts");
// Above the cards, which are those of this host alone.
const title = byId("own-workers");
// What workers of other hosts have received last, by host and generation.
const last = new Map();

const keyOf = (node, generation) => `${node}/${generation}`;

function workerItem(node, { pid, slot, generation }) {
  const item = fromTemplate("host-worker");
  item.dataset.key = keyOf(node.id, generation);
  item.querySelector(".slot-mark").textContent = slot;
  item.querySelector(".pid").textContent = pid;
  item.querySelector(".last").textContent = last.get(item.dataset.key)?.text ?? "";
  paint(item, hueOf(slot));
  return item;
}

function hostItem(node) {
  const item = fromTemplate("host");
  item.dataset.node = node.id;
  item.dataset.state = node.state;
  item.setAttribute("aria-label", `Host ${node.name}`);
  item.querySelector(".host-name").textContent = node.name;
  item.querySelector(".host-state").textContent = STATES[node.state];
  item.querySelector("ol").append(...node.workers.map((worker) => workerItem(node, worker)));
  return item;
}

let shown = "";

// `nodes` is empty if there is one host only.
export function showHosts(nodes) {
  const now = JSON.stringify(nodes);
  if (now === shown) return;
  shown = now;
  const here = new Set(nodes.flatMap((node) => node.workers.map((worker) => keyOf(node.id, worker.generation))));
  for (const key of last.keys()) if (!here.has(key)) last.delete(key);
  place.hidden = title.hidden = nodes.length === 0;
  title.textContent = nodes.length ? `What the workers of ${nodes[0].name} receive` : "";
  place.replaceChildren(...nodes.map(hostItem));
}

// A message that a worker of another host has received.
export function heardElsewhere({ node, generation, number, text }) {
  const key = keyOf(node, generation);
  if (number <= (last.get(key)?.number ?? 0)) return;
  last.set(key, { number, text });
  const item = place.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (item) item.querySelector(".last").textContent = text;
}
