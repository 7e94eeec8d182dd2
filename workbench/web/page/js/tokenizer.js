// MiniGuard's tokenizer: lower case, split into words and marks, one token a word.

const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d";
const PIECE = new RegExp(`[${WORD}]+|[^${WORD}\\p{White_Space}]+`, "gu");

// A person's text must not pose as a picture or end its own turn. What is left after removing one special text
// may form another, so this goes on until there is none.
function plain(text, special) {
  let left = text.toWellFormed ? text.toWellFormed() : text;
  while (special.some((token) => left.includes(token))) {
    for (const token of special) left = left.replaceAll(token, "");
  }
  return left;
}

export function tokenizer(tokens) {
  const words = new Map(Object.entries(tokens.vocabulary));
  const names = new Map([...words].map(([word, id]) => [id, word]));
  const silent = new Set(tokens.silent);
  const known = (piece) => words.has(piece.toLowerCase());
  const encode = (text) =>
    (plain(text, tokens.special).match(PIECE) ?? []).map((piece) => words.get(piece.toLowerCase()) ?? tokens.unknown);
  return {
    prompt: (query) => [...tokens.before, ...encode(query), ...tokens.after],
    decode: (ids) => ids.filter((id) => !silent.has(id)).map((id) => names.get(id)).join(" "),
    // The text in parts, each with whether the models know it: [["What ", true], ["zebra", false], …]
    marked: (text) => {
      const parts = [];
      let end = 0;
      for (const found of text.matchAll(PIECE)) {
        if (known(found[0])) continue;
        parts.push([text.slice(end, found.index), true], [found[0], false]);
        end = found.index + found[0].length;
      }
      return [...parts, [text.slice(end), true]].filter(([part]) => part);
    },
    known: [...words.keys()].filter((word) => /^\p{L}+$/u.test(word)).sort(),
  };
}
