// Asks all models and shows their cards; with the prediction lock, only after the visitor has said what they will do.

import { answerCard, guessCard, waitingCard } from "./cards.js";
import { byId } from "./dom.js";
import { actual, empty, kindOf, newVisitor, right, total, write } from "./guesses.js";
import { judged } from "./outcomes.js";
import { drawQr } from "./qr.js";
import { load, save } from "./store.js";

export function openAnswers({ world, models, state, draw, judge, engine }, question) {
  const key = `score.${models.map(({ name }) => name).join("|")}`;
  const score = load(key, { visitor: newVisitor(), counts: empty(models) });
  const seen = new Set(); // questions whose answers were shown: no more guesses about them
  const before = new Map(); // model → its last result, and the picture and request that it was about
  let turn = 0;
  let said = {};
  const locked = () => !byId("lock").hidden;

  const about = () => JSON.stringify([state.scene, question.request()]);
  const current = () => JSON.stringify([state.scene, question.asked()]);

  function canGuess() {
    const request = question.request();
    const isKnown = request !== null && !world.requests.unanswerable.includes(request);
    return byId("guessing").checked && isKnown && !seen.has(current());
  }

  // Called whenever picture or question have changed.
  async function ask() {
    said = {};
    byId("lock").hidden = !canGuess();
    byId("rewrite").disabled = locked(); // which would show answers, too
    if (locked()) {
      turn += 1;
      byId("loading").hidden = true;
      byId("reveal").disabled = true;
      byId("cards").setAttribute("aria-busy", "false");
      byId("cards").replaceChildren(...models.map((model) => guessCard(model, said[model.name], guess(model))));
    } else {
      await reveal();
    }
  }

  const guess = (model) => (value) => {
    said[model.name] = value;
    byId("reveal").disabled = models.some(({ name }) => !(name in said));
  };

  // Shows the answers. What was guessed is scored.
  async function reveal() {
    const mine = ++turn;
    const [scene, asked, request, topic] = [{ ...state.scene }, question.asked(), question.request(), about()];
    const guesses = said;
    const pixels = draw(scene);
    const cards = byId("cards");
    seen.add(current());
    byId("lock").hidden = true;
    byId("rewrite").disabled = false;
    if (cards.children.length !== models.length) cards.replaceChildren(...models.map(waitingCard));
    cards.setAttribute("aria-busy", "true");
    const spoken = [];
    for (const [i, model] of models.entries()) {
      const { answer, logOdds } = await engine.ask(model.name, pixels, asked);
      if (mine !== turn) return; // something else was asked meanwhile
      byId("loading").hidden = true;
      const result = { answer, logOdds, ...judged(judge, scene, request, answer) };
      const last = before.get(model.name);
      const verdict = scored(i, guesses[model.name], result);
      const earlier = last?.topic === topic && last.asked !== asked ? last : null;
      cards.children[i].replaceWith(answerCard(model, result, world.looks, earlier, verdict));
      before.set(model.name, { topic, asked, look: result.look, word: result.word });
      spoken.push(`${model.title}: ${result.word}`);
      await new Promise((resolve) => setTimeout(resolve)); // let the browser draw the card
    }
    cards.setAttribute("aria-busy", "false");
    byId("spoken").textContent = spoken.join("; ");
    showScore();
  }

  function scored(place, guessed, result) {
    if (!guessed) return null;
    const kind = kindOf(guessed, actual(result.outcome));
    score.counts[place][kind] += 1;
    save(key, score);
    return { said: guessed, right: kind === 0 };
  }

  function showScore() {
    const all = total(score.counts);
    const line = `${right(score.counts)} of ${all} guesses right`;
    byId("score").textContent = all ? line : "";
    byId("own-count").textContent = all ? `${line}.` : "No guesses yet: switch on “Guess first” and try some questions.";
    const code = write(models, score.visitor, score.counts);
    byId("own-code").textContent = all ? code : "";
    byId("copy").hidden = all === 0;
    byId("qr").hidden = all === 0;
    if (all) drawQr(byId("qr"), `${location.origin}${location.pathname}#add=${code}`);
  }

  byId("guessing").addEventListener("change", () => ask());
  byId("reveal").addEventListener("click", () => reveal());
  byId("skip").addEventListener("click", () => {
    said = {};
    reveal();
  });
  byId("copy").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(byId("own-code").textContent);
    byId("copy").textContent = "Copied";
  });
  showScore();
  return {
    ask,
    guess: (isOn) => {
      byId("guessing").checked = isOn;
    },
  };
}
