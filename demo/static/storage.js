// What a tab keeps over a reload. Of this tab: two tabs are two people.

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
    // Where nothing may be stored, it lasts as long as the page.
  }
}
