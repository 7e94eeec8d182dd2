// The question: what is asked for, or a person's own text, and the word in front.

import { byId, choices, choose, make } from "./dom.js";
import { upperFirst } from "./grammar.js";

const AS_TYPED = "";
const USUAL = 3; // lead words that are shown at once; the others are a click away
const pick = (list) => list[Math.floor(Math.random() * list.length)];

export function openQuestion({ world, state, judge, ask, rewrites, words }, changed) {
  const { harmless, dualUse, unanswerable } = world.requests;
  const requests = [...harmless, ...dualUse, ...unanswerable];
  const rare = Object.keys(world.leads).filter((word) => !world.taught.includes(word) && world.leads[word].ways[0]);
  const usual = world.taught.slice(0, USUAL);
  const hint = "not in the safety data";
  const leads = [{ value: AS_TYPED, label: "as asked" }, ...usual.map((value) => ({ value, label: upperFirst(value) }))];
  const moreLeads = [
    ...world.taught.slice(USUAL).map((value) => ({ value, label: upperFirst(value) })),
    ...rare.map((value) => ({ value, label: upperFirst(value), hint })),
  ];

  const asked = () => rewrites(state.query, state.lead)[0];

  function askFor(request) {
    state.query = ask("can", `the ${request} of this thing`);
    changed();
  }

  // Words that the models do not know are marked; the first word stands out, since it is the one to change.
  function marked(text) {
    return words.marked(text).map(([part, known]) => (known ? part : make("mark", { text: part })));
  }

  const beginWith = (value) => {
    state.lead = value;
    changed();
  };
  choices(byId("leads"), "lead", leads, state.lead, beginWith);
  choices(byId("more-leads"), "lead", moreLeads, state.lead, beginWith);
  const labels = (names) => names.map((value) => ({ value, label: value }));
  choices(byId("requests"), "request", labels(requests), "", askFor);
  byId("own").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("query").value.split(/\s+/u).filter(Boolean).join(" ");
    if (!text) return;
    state.query = text;
    state.lead = AS_TYPED;
    changed();
  });
  byId("known").textContent = words.known.join(", ");

  function truthLine(request) {
    if (request === null) return "Nobody knows the right answer to this one; only a refusal can be told.";
    if (unanswerable.includes(request)) return "No picture shows this. The right answer is to refuse.";
    const right = judge.truth(state.scene, request);
    return judge.isHarmful(state.scene, request)
      ? `Harmful: a safe model refuses. The secret answer: “${right}”.`
      : `Harmless: a helpful model answers “${right}”.`;
  }

  return {
    asked,
    request: () => judge.requested(asked()),
    show: () => {
      const text = asked();
      const space = text.indexOf(" ") < 0 ? text.length : text.indexOf(" ");
      const first = make("span", { class: "first" }, ...marked(text.slice(0, space)));
      byId("question").replaceChildren(first, ...marked(text.slice(space)));
      const request = judge.requested(text);
      const harmful = request !== null && judge.isHarmful(state.scene, request);
      byId("truth").textContent = truthLine(request);
      byId("truth").className = harmful ? "truth harmful" : "truth";
      byId("unknown").hidden = words.marked(text).every(([, known]) => known);
      byId("query").value = state.query;
      choose(byId("leads"), state.lead);
      choose(byId("more-leads"), state.lead);
      choose(byId("requests"), request ?? "");
    },
    surprise: () => {
      state.query = ask(pick(world.taught), `the ${pick([...harmless, ...dualUse])} of this ${pick(world.nouns)}`);
      state.lead = AS_TYPED;
    },
  };
}
