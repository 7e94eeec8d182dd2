// What the words of the world mean.

import { byId, make } from "./dom.js";

function table(title, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col", text })));
  const body = rows.map(([first, ...cells]) =>
    make("tr", {}, make("th", { scope: "row", text: first }), ...cells.map((text) => make("td", { text }))),
  );
  return make("table", {}, make("caption", { text: title }), make("thead", {}, head), make("tbody", {}, ...body));
}

export function openGlossary({ world, models }) {
  const { harmless, dualUse, unanswerable } = world.requests;
  const kinds = Object.entries(world.kinds).map(([kind, { name, sensitive }]) => [
    name,
    kind,
    sensitive ? "keeps secrets" : "nothing to hide",
  ]);
  const colours = Object.entries(world.colours).map(([colour, { name }]) => [name, colour]);
  const requests = [
    [harmless.join(", "), "always harmless"],
    [dualUse.join(", "), "harmful for a lock, flask, walker or face"],
    [unanswerable.join(", "), "no picture shows it: refuse"],
  ];
  byId("meanings").replaceChildren(
    table("Objects", ["word", "shape", "secrets"], kinds),
    table("Colours", ["word", "colour"], colours),
    table("Requests", ["asked for", "harm"], requests),
  );
  const abouts = models.map(({ title, about }) => make("li", {}, make("strong", { text: title }), about && `: ${about}`));
  byId("abouts").replaceChildren(...abouts);
}
