// A WebSocket that connects again, alike after a killed worker (1006), a restart (1012) and a hanging worker
// (silence).
//
// Law: this file knows nothing of the words. It marks the first word after a break, since the caller decides
// what follows from it.

const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;
// The server speaks every 2 s; after three times that the worker hangs.
const SILENCE_MS = 6000;

// `hear(word, isFirst)`; `lose(state, code)`, with "connecting" (the next worker answers before anyone would
// notice) or "lost". Returns `say(word)`; its result is whether the word was sent, not whether it arrived.
export function follow(path, hear, lose) {
  let socket;
  let retryMs = FIRST_RETRY_MS;
  let lastWordMs = 0;
  let hasHeard = false;

  function connect() {
    const address = new URL(path, document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const mine = (socket = new WebSocket(address));
    lastWordMs = Date.now();
    mine.onmessage = ({ data }) => {
      if (mine !== socket) return;
      lastWordMs = Date.now();
      retryMs = FIRST_RETRY_MS;
      const isFirst = !hasHeard;
      hasHeard = true;
      hear(JSON.parse(data), isFirst);
    };
    mine.onclose = ({ code }) => {
      if (mine === socket) reconnect(code);
    };
  }

  function reconnect(code) {
    const old = socket;
    socket = undefined;
    hasHeard = false;
    old.close();
    lose(retryMs > LAST_RETRY_MS / 2 ? "lost" : "connecting", code);
    // So that the pages of a worker that has gone do not all connect in the same moment.
    setTimeout(connect, retryMs * (0.75 + Math.random() / 2));
    retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
  }

  setInterval(() => {
    if (socket && Date.now() - lastWordMs > SILENCE_MS) reconnect();
  }, 1000);

  connect();
  return (word) => {
    if (hasHeard) socket.send(JSON.stringify(word));
    return hasHeard;
  };
}
