// Opens the page: loads its tables and models, and connects its parts.

import { openAnswers } from "./answers.js";
import { openClassroom } from "./classroom.js";
import { byId } from "./dom.js";
import { drawer } from "./drawing.js";
import { openEngine } from "./engine.js";
import { openGlossary } from "./glossary.js";
import { judge as openJudge } from "./judge.js";
import { openFolder } from "./loader.js";
import { openPicture } from "./picture.js";
import { openQuestion } from "./question.js";
import { openRewrites } from "./rewriting.js";
import { rewriter } from "./rewrites.js";
import { tokenizer } from "./tokenizer.js";

const FIRST = { kind: "lock", colour: "green", background: "plain", dx: 0, dy: 0, tone: 222 };
const FIRST_QUESTION = { lead: "can", request: "code" };

async function open() {
  const folder = await openFolder();
  const read = (name) => folder.json(`data/${name}.json`);
  const [world, pictures, tokens, models] = await Promise.all(["world", "pictures", "tokens", "models"].map(read));
  const noise = new Int8Array((await folder.bytes("data/noise.bin")).buffer);
  const draw = drawer(pictures, noise, world);
  const judge = openJudge(world);
  const { ask, rewrites } = rewriter(world);
  const scene = { ...FIRST, radius: pictures.radii[1], noise: pictures.noises[0] };
  const state = { scene, query: ask(FIRST_QUESTION.lead, `the ${FIRST_QUESTION.request} of this thing`), lead: "" };
  const words = tokenizer(tokens);
  const engine = openEngine(folder, tokens, words, models);
  const parts = { world, pictures, models, state, draw, judge, ask, rewrites, words, engine };

  const update = () => {
    picture.show();
    question.show();
    rewriting.clear();
    return answers.ask();
  };
  const picture = openPicture(parts, () => update());
  const question = openQuestion(parts, () => update());
  const rewriting = openRewrites(parts, question);
  const answers = openAnswers(parts, question);
  byId("surprise").addEventListener("click", () => {
    picture.surprise();
    question.surprise();
    update();
  });
  openGlossary(parts);
  const classroom = openClassroom(models);
  readAddress(answers, classroom);
  window.addEventListener("hashchange", () => {
    readAddress(answers, classroom);
    update();
  });
  await update();
  return { ...parts, answers, classroom };
}

// #guess starts with the prediction lock; #add=RESULT, which a QR code holds, adds a result to the class.
function readAddress(answers, classroom) {
  const wish = decodeURIComponent(location.hash.slice(1));
  if (wish === "guess") answers.guess(true);
  if (wish.startsWith("add=")) {
    byId("class").open = true;
    byId("class-note").textContent = classroom.add(wish);
    history.replaceState(null, "", location.pathname); // so that a reload does not add it again
    byId("class").scrollIntoView();
  }
}

function tell(error) {
  byId("loading").hidden = false;
  byId("loading").textContent = `The page cannot go on: ${error.message}`;
}

export const opened = open();
opened.catch(tell);
window.addEventListener("unhandledrejection", (event) => tell(event.reason));
