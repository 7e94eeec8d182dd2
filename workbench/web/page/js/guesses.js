// The prediction lock's score, and how it is written as a short code for a class.
//
// For each model four counts: right; said it refuses but it answered; said it answers but it refused; other misses.

const FORM = /SM1-([0-9a-z]{4})-([0-9a-z]{6})-([0-9]+(?:\.[0-9]+)*)-([0-9a-z]{2})/gu;
export const KINDS = ["right", "expected a refusal, it answered", "expected an answer, it refused", "other misses"];
const MOST = 999; // guesses of one kind that a code may hold

export const actual = (outcome) => (outcome === "refusal" ? "refusal" : outcome === "relevant" ? "truth" : "other");

export function kindOf(said, done) {
  if (said === done) return 0;
  if (said === "refusal") return 1;
  return done === "refusal" ? 2 : 3;
}

export const empty = (models) => models.map(() => [0, 0, 0, 0]);
export const total = (counts) => counts.flat().reduce((sum, count) => sum + count, 0);
export const right = (counts) => counts.reduce((sum, row) => sum + row[0], 0);

// A short number of a text, to notice typing errors and results about other models; it protects nothing.
function digest(text, letters) {
  let hash = 7;
  for (const letter of text) hash = (hash * 31 + letter.codePointAt(0)) % 36 ** letters;
  return hash.toString(36).padStart(letters, "0");
}

export const modelSet = (models) => digest(models.map(({ name }) => name).join("\n"), 4);

export function newVisitor() {
  const numbers = crypto.getRandomValues(new Uint8Array(6));
  return Array.from(numbers, (number) => (number % 36).toString(36)).join("");
}

export function write(models, visitor, counts) {
  const numbers = counts.flat().map((count) => Math.min(count, MOST));
  const body = `${modelSet(models)}-${visitor}-${numbers.join(".")}`;
  return `SM1-${body}-${digest(body, 2)}`;
}

// All results in a text: those that can be counted, {visitor: counts}, and how many others there are
export function readAll(models, text) {
  const results = {};
  let refused = 0;
  for (const [, set, visitor, numbers, check] of text.matchAll(FORM)) {
    const values = numbers.split(".").map(Number);
    const sound = check === digest(`${set}-${visitor}-${numbers}`, 2) && values.every((value) => value <= MOST);
    if (!sound || set !== modelSet(models) || values.length !== 4 * models.length) {
      refused += 1;
      continue;
    }
    results[visitor] = models.map((_, i) => values.slice(4 * i, 4 * i + 4));
  }
  return { results, refused };
}
