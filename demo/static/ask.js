// The question: the page asks every worker for its uptime, and shows each answer in a row.
//
// Law: a worker that does not answer has a row like the others, with the reason.

import { byId, fromTemplate, hueOf, paint } from "./look.js";
import { question } from "./post.js";

// The server gives every worker 2 s.
const ANSWER_MS = 4000;

const button = byId("ask");
const answers = byId("answers");
const outcome = byId("ask-outcome");

function inWords(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function row(pid, slot, text, failed) {
  const item = fromTemplate("answer");
  item.dataset.pid = pid;
  item.classList.toggle("failed", failed);
  item.querySelector(".slot-mark").textContent = slot ?? "?";
  item.querySelector(".pid").textContent = pid;
  item.querySelector(".value").textContent = text;
  if (slot !== undefined) paint(item, hueOf(slot));
  return item;
}

// `slotOf(pid)`: the worker's slot, or undefined if the page has never seen the worker.
export function onAsk(slotOf) {
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    // Not `disabled`, which would take the focus away.
    button.setAttribute("aria-disabled", "true");
    outcome.classList.remove("failed");
    outcome.textContent = "asking…";
    try {
      const answer = await question("uptime", ANSWER_MS);
      const rows = Object.entries(answer.uptime).map(([pid, seconds]) => [pid, inWords(seconds), false]);
      for (const [pid, reason] of Object.entries(answer.errors)) rows.push([pid, reason, true]);
      const inOrder = rows.map(([pid, ...rest]) => [pid, slotOf(Number(pid)), ...rest]);
      inOrder.sort((a, b) => (a[1] ?? Infinity) - (b[1] ?? Infinity) || a[0] - b[0]);
      answers.replaceChildren(...inOrder.map((each) => row(...each)));
      const answered = Object.keys(answer.uptime).length;
      outcome.textContent = `worker ${answer.from} asked; ${answered} of ${rows.length} answered`;
    } catch (error) {
      outcome.classList.add("failed");
      outcome.textContent = `not asked: ${error.message}`;
    }
    button.removeAttribute("aria-disabled");
  });
}
