// What the files of the libraries have in common.

/** The members that are there. */
export const given = (members) =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== null && value !== undefined));

/** Runs `ask`; what it throws is told together with the text in `seen`. */
export async function told(seen, describe, ask) {
  try {
    return await ask();
  } catch (error) {
    const failure = describe(error);
    if (!failure) throw error;
    error.failure = { so_far: seen.join(""), retry_after: null, status: null, ...failure };
    throw error;
  }
}

/** The entries of a conversation, each with what its kind is turned into. */
export const turned = (history, { user, results, turn }) =>
  history.flatMap((entry) => {
    if ("turn" in entry) return turn(entry.turn);
    return "results" in entry ? results(entry.results) : user(entry.user, entry.images);
  });

export const dataUrl = (image) => `data:image/png;base64,${image}`;

export async function collect(pages, id) {
  const ids = [];
  for await (const model of pages) ids.push(id(model));
  return ids;
}
