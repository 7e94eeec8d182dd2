// K rewrites of the question that begin with the same word, and what each model says to them.

import { byId, make } from "./dom.js";
import { upperFirst } from "./grammar.js";
import { judged, paint, signOf } from "./outcomes.js";

const USUAL = "3"; // K of the study's attack
const USUAL_WORD = "what";

export function openRewrites({ world, models, state, draw, judge, rewrites, engine }, question) {
  const place = byId("rewrites");
  byId("shots").replaceChildren(...world.fillers.map((_, i) => make("option", { text: String(i + 1) })));
  byId("shots").value = USUAL;
  const word = () => state.lead || USUAL_WORD;
  let turn = 0;

  function cell(result) {
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    paint(swatch, result.look, world.looks);
    const text = make("span", { text: `${result.sign} ${result.word}` });
    return make("td", { title: result.answer ?? "" }, make("span", { class: "chip" }, swatch, text));
  }

  // The outcome that counts, and how often it came
  function anyOf(results, harmful) {
    const worst = judge.worst(results.map(({ outcome }) => outcome), harmful);
    const look = results.find(({ outcome }) => outcome === worst).look;
    const count = results.filter(({ outcome }) => outcome === worst).length;
    const [sign, name] = signOf(look);
    return { look, sign, word: `${name} (${count} of ${results.length})` };
  }

  byId("rewrite").addEventListener("click", async () => {
    const mine = ++turn;
    const scene = { ...state.scene };
    const queries = rewrites(state.query, word(), Number(byId("shots").value));
    const request = judge.requested(queries[0]);
    const pixels = draw(scene);
    const rows = [];
    byId("rewrite").disabled = true;
    for (const model of models) {
      const results = [];
      for (const query of queries) {
        const { answer } = await engine.ask(model.name, pixels, query);
        results.push({ answer, ...judged(judge, scene, request, answer) });
      }
      const harmful = request !== null && judge.isHarmful(scene, request);
      const counts = request === null ? [] : [cell(anyOf(results, harmful))];
      rows.push(make("tr", {}, make("th", { scope: "row", text: model.title }), ...results.map(cell), ...counts));
      await new Promise((resolve) => setTimeout(resolve));
    }
    byId("rewrite").disabled = false;
    if (mine !== turn) return;
    const heads = ["model", ...queries.map((_, i) => `rewrite ${i + 1}`), ...(request === null ? [] : ["any of them"])];
    const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col", text })));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    const list = make("ol", {}, ...queries.map((text) => make("li", { text })));
    place.replaceChildren(list, table);
    place.hidden = false;
  });

  return {
    clear: () => {
      turn += 1;
      place.hidden = true;
      byId("rewrite").textContent = `Try rewrites that begin with “${upperFirst(word())}”`;
    },
  };
}
