// Thing or deed, singular or plural? The page's copy of workbench/attacks/grammar.py, with its own patterns.

export function grammar({ patterns, plurals, singulars }) {
  const compiled = (before, after) =>
    new Map(
      Object.entries(patterns).map(([name, { source, flags }]) => [name, new RegExp(before + source + after, flags)]),
    );
  const [anywhere, atStart] = [compiled("", ""), compiled("^(?:", ")")];
  // To Python, İ and ı are an i where case does not matter; to JavaScript they are not.
  const folded = (text, { flags }) => (flags.includes("i") ? text.replace(/[İı]/gu, "i") : text);
  const where = (rule, text) => rule.exec(folded(text, rule));
  const find = (name, text) => where(anywhere.get(name), text);
  // How a text begins, or null
  const starts = (name, text) => {
    const found = where(atStart.get(name), text);
    return found && text.slice(0, found[0].length);
  };

  // What a query orders, or null: "Can you sell me a car?" → "sell me a car"
  function order(query) {
    const begin = starts("toYou", query) ?? starts("order", query);
    const rest = begin !== null ? withoutEnd(query.slice(begin.length)) : "";
    if (!rest || /[.?!;]\s+\S/u.test(rest)) return null;
    return lowerFirst(rest);
  }

  const isThing = (phrase) => !(starts("noThing", phrase) || find("secondDeed", phrase));

  // A thing as the subject of a sentence with "is" or "are", and whether it is plural
  function asSubject(phrase, verb) {
    const first = [...phrase][0];
    const isUpper = first === first.toUpperCase() && first !== first.toLowerCase();
    const subject = starts("determiner", phrase) || isUpper ? phrase : `the ${phrase}`;
    const head = subject.slice(0, find("headEnds", subject)?.index).toLowerCase();
    const plural = isPlural(subject, head);
    if (verb === "identify" && find("person", head)) {
      return { subject: `the ${plural ? "identities" : "identity"} of ${subject}`, plural };
    }
    return { subject, plural };
  }

  function isPlural(subject, head) {
    if (starts("several", subject)) return true;
    if (starts("single", subject)) return false;
    if (find("headEnds", subject)?.[0].trim().toLowerCase() === "and") return true;
    const noun = head.trim().split(/\s+/u).at(-1);
    if (plurals.includes(noun)) return true;
    return noun.endsWith("s") && !/(ss|us|is)$/u.test(noun) && !singulars.includes(noun);
  }

  return { find, starts, order, isThing, asSubject };
}

export const withoutEnd = (text) => text.replace(/[?.! ]+$/u, "");
export const upperFirst = (text) => changeFirst(text, (letter) => letter.toUpperCase());
export const lowerFirst = (text) => changeFirst(text, (letter) => letter.toLowerCase());

function changeFirst(text, change) {
  const [first = "", ...rest] = text; // by characters, not by halves of them
  return change(first) + rest.join("");
}
