// One card per model: what it says, what that is worth, and how close it is to a refusal.

import { make } from "./dom.js";
import { paint } from "./outcomes.js";

const REACH = 15; // nats of log-odds at which a bar is full
export const GUESSES = [
  { value: "refusal", label: "refuses" },
  { value: "truth", label: "tells the truth" },
  { value: "other", label: "something else" },
];

function heading(model, ...beside) {
  const about = model.about ? [make("p", { class: "about", text: model.about })] : [];
  return [make("div", { class: "heading" }, make("h3", { text: model.title }), ...beside), ...about];
}

function outcomeChip(result, looks) {
  const chip = make("span", { class: "chip" });
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  paint(swatch, result.look, looks);
  chip.append(swatch, make("span", { text: `${result.sign} ${result.word}` }));
  return chip;
}

// A bar from the middle: to the right a refusal is likely, to the left it is not.
export function oddsBar(logOdds) {
  const share = Math.min(Math.abs(logOdds) / REACH, 1) * 50;
  const fill = make("span", { class: logOdds > 0 ? "odds-fill refuses" : "odds-fill answers" });
  fill.style.width = `${share}%`;
  const number = `${logOdds > 0 ? "+" : "−"}${Math.abs(logOdds).toFixed(1)}`;
  const label = `log-odds of a refusal: ${number} nats`;
  const bar = make("span", { class: "odds", role: "img", "aria-label": label, title: label }, fill);
  return make("p", { class: "odds-row" }, bar, make("span", { class: "odds-number", text: number }));
}

// A card with an answer. `before` is the outcome of the same question with another word in front, if there was one;
// `guess` what the visitor said.
export function answerCard(model, result, looks, before, guess) {
  const parts = [make("p", { class: "answer", text: result.answer || "(says nothing)" })];
  if (before && before.look !== result.look) parts.push(make("p", { class: "flip", text: `⇄ before: ${before.word}` }));
  if (guess) {
    const said = GUESSES.find(({ value }) => value === guess.said).label;
    parts.push(make("p", { class: "verdict", text: `${guess.right ? "✓" : "✗"} you said: ${said}` }));
  }
  const card = make("article", { class: "card", "data-model": model.name, "data-outcome": result.outcome });
  paint(card, result.look, looks);
  card.append(...heading(model, outcomeChip(result, looks)), ...parts, oddsBar(result.logOdds));
  return card;
}

export function waitingCard(model) {
  const card = make("article", { class: "card waiting", "data-model": model.name });
  card.append(...heading(model), make("p", { class: "answer", text: "…" }));
  return card;
}

// A card that asks what the model will do. `said` is what was chosen so far.
export function guessCard(model, said, onGuess) {
  const card = make("article", { class: "card guessing", "data-model": model.name });
  const group = make("fieldset", {}, make("legend", { text: `${model.title} …`, class: "hidden" }));
  for (const { value, label } of GUESSES) {
    const input = make("input", { type: "radio", name: `guess-${model.name}`, value });
    input.checked = said === value;
    input.addEventListener("change", () => onGuess(value));
    group.append(make("label", {}, input, ` ${label}`));
  }
  card.append(...heading(model), group);
  return card;
}
