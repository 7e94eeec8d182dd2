// The class view: visitors' results, pasted or scanned, added up in one chart.

import { byId, make } from "./dom.js";
import { KINDS, readAll, right, total } from "./guesses.js";
import { load, save } from "./store.js";

const LOOKS = ["guess-right", "guess-refusal", "guess-answer", "guess-other"]; // classes of the style sheet

function bar(title, counts) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  const said = `${title}: ${counts[0]} of ${all} guesses right`;
  const row = make("div", { class: "bar", role: "img", "aria-label": `${said}; ${parts(counts)}` });
  counts.forEach((count, i) => {
    if (!count) return;
    const part = make("span", { class: `bar-part ${LOOKS[i]}`, text: count, title: `${KINDS[i]}: ${count}` });
    part.style.flexGrow = count;
    row.append(part);
  });
  return make("li", {}, make("span", { class: "bar-title", text: title }), row);
}

const parts = (counts) => counts.map((count, i) => `${KINDS[i]} ${count}`).join(", ");

export function openClassroom(models) {
  const key = `class.${models.map(({ name }) => name).join("|")}`;
  let results = load(key, {});

  function draw() {
    const each = Object.values(results);
    const sums = models.map((_, i) => KINDS.map((_, kind) => each.reduce((sum, counts) => sum + counts[i][kind], 0)));
    byId("class-count").textContent = each.length
      ? `${each.length} ${each.length === 1 ? "visitor" : "visitors"}, ${total(sums)} guesses, ${right(sums)} right.`
      : "No results yet.";
    byId("class-chart").replaceChildren(...(each.length ? models.map(({ title }, i) => bar(title, sums[i])) : []));
    byId("class-legend").hidden = each.length === 0;
  }

  // A visitor's later result takes the place of an earlier one.
  function add(text) {
    const found = readAll(models, text);
    const count = Object.keys(found.results).length;
    results = { ...results, ...found.results };
    save(key, results);
    draw();
    const added = `${count} ${count === 1 ? "result" : "results"} added.`;
    return found.refused ? `${added} ${found.refused} not readable, or about other models.` : added;
  }

  const legend = KINDS.map((kind, i) =>
    make("li", {}, make("span", { class: `key ${LOOKS[i]}`, "aria-hidden": "true" }), ` ${kind}`),
  );
  byId("class-legend").replaceChildren(...legend);
  byId("class-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = byId("class-text");
    byId("class-note").textContent = field.value.includes("SM1-") ? add(field.value) : "There is no result in this text.";
    field.value = "";
  });
  byId("class-clear").addEventListener("click", () => {
    results = {};
    save(key, results);
    byId("class-note").textContent = "All results are removed.";
    draw();
  });
  draw();
  return { add };
}
