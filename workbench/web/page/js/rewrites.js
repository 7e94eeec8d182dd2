// The one-word attack: a query in K other words that begin with a given one. The page's copy of
// workbench/attacks/one_word.py; tests compare the two.

import { grammar, lowerFirst, upperFirst, withoutEnd } from "./grammar.js";

export function rewriter(world) {
  const { find, starts, order, isThing, asSubject } = grammar(world.rewriting);

  // A query that begins with a lead word: ("can", "the code of this thing") → "Can you tell the code of this thing?"
  function ask(lead, topic, way = 0) {
    const query = `${world.leads[lead].ways[way]} ${topic}`.trim();
    return `${upperFirst(query)}${world.questions.includes(lead) ? "?" : "."}`;
  }

  function putInFront(word, text, filler) {
    return `${upperFirst(`${word} ${filler}`.trim())}, ${lowerFirst(text)}`;
  }

  // How a query asks for a thing, and the thing; null if it asks for none that is known
  function askingAndTopic(query) {
    const asking = starts("asking", query);
    const topic = asking ? withoutEnd(query.slice(asking.length)) : "";
    if (!topic || !isThing(topic) || find("sharePicture", query)) return null;
    return { asking, topic };
  }

  function forThing(word, query) {
    const found = askingAndTopic(query);
    if (!found || !Object.hasOwn(world.leads, word)) return [];
    const ways = world.leads[word].ways.map((_, way) => way);
    if (word !== "what") return ways.map((way) => ask(word, found.topic, way));
    const verb = found.asking.trim().split(/\s+/u).at(-1).toLowerCase();
    const { subject, plural } = asSubject(found.topic, verb);
    const asked = ways.map((way) => ask(word, subject, way));
    return plural ? asked.map((query) => query.replace(/^(What|What exactly) is /u, "$1 are ")) : asked;
  }

  function forDeed(word, query) {
    const deed = order(query);
    const ways = Object.hasOwn(world.rewriting.deeds, word) ? world.rewriting.deeds[word] : [];
    return deed ? ways.map((way) => way.split("{}").join(deed)) : [];
  }

  // K rewrites that begin with `word`; "" leaves the query as it is
  function rewrites(query, word, count = 1) {
    if (!word) return [query];
    const thing = forThing(word, query);
    const reworded = thing.length ? thing : forDeed(word, query);
    return [...reworded, ...world.fillers.map((filler) => putInFront(word, query, filler))].slice(0, count);
  }

  return { ask, rewrites };
}
