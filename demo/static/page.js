// The page: it shows the live stream, and sends by the routes that curl uses, too.
//
// Law: the stream may repeat itself and may break off; (generation, number) says which messages are known
// already. A worker is its generation; a pid is only its name. Text from others is text, never markup.

import { onAsk } from "./ask.js";
import "./chat.js";
import { follow } from "./follow.js";
import { heardElsewhere, showHosts } from "./hosts.js";
import { byId, fromTemplate, hueOf, paint, showConnection, showTime, stayAtEnd } from "./look.js";
import { post } from "./post.js";

const FADE_AFTER_MS = 1600;
const FADE_MS = 700;
const MAX_SHOWN = 60;
// A message older than this at its arrival is history, not news.
const NEWS_S = 4;

const slots = byId("slots");

// --- workers

class WorkerCard {
  constructor({ pid, slot, generation }) {
    Object.assign(this, { pid, slot, generation });
    this.gone = false;
    this.hadFocus = false;
    this.shown = new Map();
    this.forgottenUpTo = 0;
    this.element = fromTemplate("worker");
    this.list = this.find(".messages");
    this.followEnd = stayAtEnd(this.list);
    this.form = this.find("form");
    this.input = this.form.elements.text;
    this.element.dataset.pid = pid;
    this.element.dataset.generation = generation;
    this.element.setAttribute("aria-label", `Worker ${pid} in slot ${slot}`);
    this.find(".slot-number").textContent = slot;
    this.find(".pid").textContent = pid;
    this.find(".generation").textContent = `generation ${generation}`;
    this.list.setAttribute("aria-label", `Messages that worker ${pid} received`);
    this.input.setAttribute("aria-label", `Message to worker ${pid}`);
    this.input.placeholder = `Message to ${pid}`;
    paint(this.element, hueOf(slot));
    onSubmit(this.form, `send/${pid}/`);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  setState({ through, leads, older }) {
    this.element.classList.toggle("older", older);
    this.element.classList.toggle("leader", leads);
    this.find(".leads").hidden = !leads;
    const state = this.gone ? "gone" : older ? "leaving" : through ? "this page" : "";
    const chip = this.find(".state");
    if (chip.textContent === state) return;
    chip.textContent = state;
    chip.title = state === "this page" ? "The page is connected through this worker" : "";
  }

  add(message) {
    if (message.number <= this.forgottenUpTo || this.shown.has(message.number)) return;
    this.place(messageItem(message), message);
    this.followEnd();
    this.find(".total").textContent = this.list.lastElementChild.dataset.number;
  }

  place(item, message) {
    let behind = this.list.lastElementChild;
    while (behind && Number(behind.dataset.number) > message.number) behind = behind.previousElementSibling;
    if (behind) behind.after(item);
    else this.list.prepend(item);
    this.shown.set(message.number, item);
    while (this.shown.size > MAX_SHOWN) this.forget(this.list.firstElementChild);
  }

  forget(item) {
    this.forgottenUpTo = Number(item.dataset.number);
    this.shown.delete(this.forgottenUpTo);
    item.remove();
  }

  leave() {
    this.gone = true;
    this.hadFocus = document.activeElement === this.input;
    this.element.classList.add("gone");
    for (const control of this.form.elements) control.disabled = true;
    setTimeout(() => this.element.classList.add("fading"), FADE_AFTER_MS);
    setTimeout(() => {
      const place = this.element.parentElement;
      this.element.remove();
      if (!place.childElementCount) place.remove();
      cards.delete(this.generation);
    }, FADE_AFTER_MS + FADE_MS);
  }

  // Text being typed to a worker moves to its successor.
  inherit(older) {
    if (!this.input.value) this.input.value = older.input.value;
    older.input.value = "";
    if (older.hadFocus || document.activeElement === older.input) this.input.focus();
    older.hadFocus = false;
  }
}

const cards = new Map();

function placeOf(slot) {
  for (const place of slots.children) {
    if (Number(place.dataset.slot) === slot) return place;
    if (Number(place.dataset.slot) > slot) return place.parentElement.insertBefore(newPlace(slot), place);
  }
  return slots.appendChild(newPlace(slot));
}

function newPlace(slot) {
  const place = document.createElement("section");
  place.className = "slot";
  place.dataset.slot = slot;
  place.setAttribute("aria-label", `Slot ${slot}`);
  return place;
}

function showFleet({ through, leader, launcher, workers, nodes }) {
  const here = new Set(workers.map((worker) => worker.generation));
  for (const worker of workers) {
    if (!cards.has(worker.generation)) {
      const card = new WorkerCard(worker);
      cards.set(worker.generation, card);
      placeOf(worker.slot).append(card.element);
    }
  }
  for (const card of cards.values()) if (!card.gone && !here.has(card.generation)) card.leave();
  for (const card of cards.values()) {
    const successor = successorOf(card);
    const leads = card.pid === leader && !card.gone;
    card.setState({ through: card.pid === through, leads, older: successor !== undefined });
    successor?.inherit(card);
  }
  const count = workers.length === 1 ? "1 worker" : `${workers.length} workers`;
  showHosts(nodes ?? []);
  byId("count").textContent = nodes
    ? `${count} of this host, ${nodes.length} hosts talking to each other`
    : `${count} of one server, talking to each other`;
  document.title = `asgi-ipc · ${count}`;
  byId("example-pid").textContent = byId("example-target").textContent = workers[0].pid;
  for (const name of document.querySelectorAll(".launcher")) name.textContent = launcher ?? "LAUNCHER";
}

function successorOf(card) {
  let successor;
  for (const other of cards.values()) {
    if (other.slot === card.slot && other.generation > (successor ?? card).generation) successor = other;
  }
  return successor;
}

// --- messages

function messageItem(message) {
  const item = fromTemplate("message");
  const known = message.from_slot !== null;
  item.dataset.number = message.number;
  item.dataset.from = message.from;
  item.classList.toggle("reply", message.name === "reply");
  const more = message.more_chars ? `… (${message.more_chars} more)` : "";
  item.querySelector(".text").textContent = message.text + more;
  const from = item.querySelector(".from");
  const sender = document.createElement("b");
  sender.textContent = known ? `slot ${message.from_slot}` : "gone";
  from.append(message.name === "reply" ? "reply from " : "from ", sender, ` · ${message.from}`, message.from_host ? ` · ${message.from_host}` : "");
  showTime(item.querySelector("time"), message.at_s * 1000);
  if (known) paint(item, hueOf(message.from_slot));
  item.classList.toggle("stranger", !known);
  item.classList.toggle("new", Date.now() / 1000 - message.at_s < NEWS_S);
  return item;
}

// --- sending

function onSubmit(form, path) {
  const input = form.elements.text;
  const outcome = form.querySelector(".outcome");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!input.value) return;
    const text = input.value;
    input.value = "";
    outcome.classList.remove("failed");
    outcome.textContent = "";
    try {
      const answer = await post(path + encodeURIComponent(text.toWellFormed?.() ?? text));
      const to = Array.isArray(answer.to) ? `${answer.to.length} workers` : answer.to;
      outcome.textContent = `sent by ${answer.from} to ${to}`;
    } catch (error) {
      if (!input.value) input.value = text;
      outcome.classList.add("failed");
      outcome.textContent = `not sent: ${error.message}`;
    }
  });
}

// --- the connection

function show(state, text) {
  document.body.dataset.state = state;
  showConnection(byId("connection"), state, text);
}

byId("example-url").textContent = document.baseURI.replace(/\/+$/, "");
onSubmit(byId("broadcast"), "broadcast/");
onAsk((pid) => [...cards.values()].findLast((card) => card.pid === pid)?.slot);
follow(
  "live",
  (word) => {
    if (word.kind === "fleet") {
      showFleet(word);
      show("connected", `connected through worker ${word.through}`);
    } else if (word.node) {
      heardElsewhere(word);
    } else if (word.kind === "message") {
      cards.get(word.generation)?.add(word);
    }
  },
  (state) => show(state, state === "lost" ? "no worker answers; trying again…" : "reconnecting…"),
);
