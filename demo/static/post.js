// The page's requests to the routes, the same as those of curl.

export async function post(path, signal) {
  const response = await fetch(path, { method: "POST", signal }).catch(() => {
    throw new Error("the server did not answer");
  });
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
  return answer;
}

// A question may be repeated. A worker may have accepted a connection and stood still right after; giving up
// closes it, and the next try opens another.
export async function question(path, timeout_ms, tries = 3) {
  const signal = AbortSignal.timeout(timeout_ms);
  try {
    return await post(path, signal);
  } catch (error) {
    if (!signal.aborted || tries === 1) throw error;
    return question(path, timeout_ms, tries - 1);
  }
}
