// What pages ask of the folder that they teach in.

export const BACKGROUND = "background";
const token = location.hash.slice(1);

// The answer; an Error with a sentence for people.
export async function ask(method, path, { body, type } = {}) {
  const headers = { Authorization: `Bearer ${token}`, ...(type && { "Content-Type": type }) };
  const answer = await fetch(path, { method, headers, body }).catch(() => {
    throw new Error("The server does not answer: start it, then try again.");
  });
  if (answer.ok) return answer;
  if (answer.status === 401) throw new Error("This address lacks the server's token: open the one that the server printed.");
  throw new Error((await answer.json().catch(() => ({}))).error ?? `The server answers ${answer.status}.`);
}

export const state = async () => (await ask("GET", "/teach/state")).json();
export const place_of = (label, name) => `/teach/clips/${encodeURIComponent(label)}/${encodeURIComponent(name)}`;
export const move = async (label, name, to) => (await ask("POST", `${place_of(label, name)}?${new URLSearchParams({ to })}`)).json();

// Keeps a clip: samples (Int16Array), or pictures [{jpeg, at}].
export async function keep(clip, label, place, take, rate) {
  const query = new URLSearchParams({ label, place, take, rate });
  const [body, type] = clip instanceof Int16Array ? [clip, "audio/l16"] : [packed(clip), "application/octet-stream"];
  return (await ask("POST", `/teach/clips?${query}`, { body, type })).json();
}

// Pictures in one body, each behind its milliseconds and its size.
function packed(pictures) {
  return new Blob(pictures.flatMap(({ jpeg, at }) => [Uint32Array.of(Math.round(at - pictures[0].at), jpeg.length), jpeg]));
}

// The first take at a place that has no clips yet.
export function next_take({ classes }, place) {
  const taken = classes.flatMap(({ list }) => list).filter((clip) => clip.place === place).map(({ take }) => Number(take.slice(place.length + 1)));
  return 1 + Math.max(0, ...taken);
}
