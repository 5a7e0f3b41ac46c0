// Data that a tab keeps over a reload. It belongs to this tab alone: two tabs are two people.

export function recall(key, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // If the browser may store nothing, the data lasts as long as the page.
  }
}
