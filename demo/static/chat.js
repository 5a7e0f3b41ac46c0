// The chat: one room with the same lines for the pages of all workers.
//
// Law: a line is its id. It waits here until it comes back, so a worker that goes takes no line with it; a
// line that comes twice is shown once. The text being typed is never touched, and outlives a reload.

import { follow } from "./follow.js";
import { byId, fromTemplate, hueOf, paint, showConnection, showTime, stayAtEnd } from "./look.js";
import { keep, recall } from "./storage.js";

// As many as a worker remembers.
const MAX_SHOWN = 100;
const MAX_WAITING = 50;
// The close code with which the server refuses a word.
const AGAINST_POLICY = 1008;
const NAMES = ["Otter", "Heron", "Lynx", "Wren", "Hare", "Newt", "Robin", "Badger", "Swift", "Marten", "Owl", "Seal"];

const list = byId("conversation");
const form = byId("say");
const { text: input, name: nameInput } = form.elements;
const followEnd = stayAtEnd(list);
const outcome = form.querySelector(".outcome");

const random = (below) => crypto.getRandomValues(new Uint32Array(1))[0] % below;

// crypto.randomUUID is only there for pages that come from this machine, or by https.
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- who

const me = recall("me", { name: NAMES[random(NAMES.length)], hue: random(360) });

function showMe() {
  nameInput.value = me.name;
  paint(byId("me"), me.hue);
  keep("me", me);
}

nameInput.addEventListener("change", () => {
  me.name = wellFormed(nameInput.value) || me.name;
  showMe();
});

byId("hue").addEventListener("click", () => {
  me.hue = (me.hue + 50) % 360;
  showMe();
});

const wellFormed = (text) => (text.toWellFormed?.() ?? text).trim();

// --- lines

// The lines in the list, by id: { line, item }; and those that have not come back yet, in the order of
// typing: these have no time yet.
const shown = new Map();
const waiting = new Map();

const comesBefore = (one, other) => one.at_us < other.at_us || (one.at_us === other.at_us && one.id < other.id);

function show(line) {
  const item = fromTemplate("line");
  item.dataset.id = line.id;
  item.classList.toggle("mine", line.name === me.name && line.hue === me.hue);
  item.classList.toggle("waiting", waiting.has(line.id));
  item.querySelector(".name").textContent = line.name;
  item.querySelector(".text").textContent = line.text;
  paint(item, line.hue);
  let before = list.lastElementChild;
  while (before && comesBefore(line, shown.get(before.dataset.id).line)) before = before.previousElementSibling;
  if (before) before.after(item);
  else list.prepend(item);
  shown.set(line.id, { line, item });
  return item;
}

function hear(line) {
  const known = shown.get(line.id);
  // A line sent through two workers has the earlier of its two times.
  if (known && known.line.at_us <= line.at_us) return;
  known?.item.remove();
  if (waiting.delete(line.id)) keepWaiting();
  const item = show(line);
  const through = item.querySelector(".through");
  through.textContent = `worker ${line.pid}`;
  through.title = `It came through worker ${line.pid} in slot ${line.slot}`;
  paint(through, hueOf(line.slot));
  showTime(item.querySelector("time"), line.at_us / 1000);
  while (shown.size - waiting.size > MAX_SHOWN) forget(list.firstElementChild);
}

function forget(item) {
  shown.delete(item.dataset.id);
  item.remove();
}

// --- saying

function wait(said) {
  const line = { ...said, at_us: Infinity };
  waiting.set(line.id, said);
  show(line).querySelector(".through").textContent = "not sent yet";
}

const keepWaiting = () => keep("waiting", [...waiting.values()]);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = wellFormed(input.value);
  if (!text) return;
  const isFull = waiting.size >= MAX_WAITING;
  outcome.textContent = isFull ? `not taken: ${waiting.size} lines wait already` : "";
  if (isFull) return;
  const said = { id: newId(), ...me, text };
  wait(said);
  // After sending, the reader wants to see the line.
  list.scrollTop = list.scrollHeight;
  input.value = "";
  keep("draft", "");
  keepWaiting();
  say(said);
});

input.addEventListener("input", () => keep("draft", input.value));

function refused() {
  const [said] = waiting.values();
  if (!said) return;
  waiting.delete(said.id);
  keepWaiting();
  forget(shown.get(said.id).item);
  input.value ||= said.text;
  outcome.textContent = "the server refused this line";
}

// --- the connection

showMe();
input.value = recall("draft", "");
for (const said of recall("waiting", [])) wait(said);

const say = follow(
  "chat",
  ({ through, slot, lines }, isFirst) => {
    lines.forEach(hear);
    followEnd();
    if (!isFirst) return;
    showConnection(byId("chat-connection"), "connected", `through worker ${through} in slot ${slot}`);
    // The lines included those sent through a worker that has gone.
    for (const said of waiting.values()) say(said);
  },
  (state, code) => {
    if (code === AGAINST_POLICY) refused();
    const text = state === "lost" ? "no worker answers; trying again…" : "reconnecting…";
    showConnection(byId("chat-connection"), state, text);
  },
);
