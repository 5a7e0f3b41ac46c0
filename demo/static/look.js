// The look of things, the same everywhere: a slot has one hue, a time has one form, a connection one mark.

// Far apart from one slot to the next, and the first four from each other.
const HUES = [245, 160, 28, 330, 200, 95, 285, 55];

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const byId = (id) => document.getElementById(id);

export const fromTemplate = (id) => byId(id).content.firstElementChild.cloneNode(true);

export function paint(element, hue) {
  element.dataset.hue = "";
  element.style.setProperty("--hue", hue);
}

export const hueOf = (slot) => HUES[slot % HUES.length] + 13 * Math.floor(slot / HUES.length);

export function showTime(element, at_ms) {
  const at = new Date(at_ms);
  element.dateTime = at.toISOString();
  element.textContent = clock.format(at);
}

export function showConnection(element, state, text) {
  element.dataset.state = state;
  const words = element.querySelector(".words");
  // A screen reader announces every change.
  if (words.textContent !== text) words.textContent = text;
}

// What is at the end of a list stays in sight if it was: whatever is added, if what is returned is called
// then, and when the list gets smaller.
export function stayAtEnd(list) {
  let isAtEnd = true;
  const follow = () => {
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  };
  list.addEventListener("scroll", () => {
    isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  });
  new ResizeObserver(follow).observe(list);
  return follow;
}
