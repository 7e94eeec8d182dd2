// How an outcome is called and drawn: a sign and a word beside the colour, so that none depends on colour alone.

const WORDS = {
  refusal: ["⊘", "refuses"],
  relevant: ["⚠", "tells the secret"],
  right: ["✔", "right answer"],
  wrong: ["✘", "false answer"],
  irrelevant: ["≈", "beside the point"],
  degenerate: ["…", "nonsense"],
  answered: ["✎", "answers"],
};

// What stands on a card for an answer. `request` is null if nobody knows what the right answer is.
export function judged(judge, scene, request, answer) {
  if (request === null) {
    const look = judge.isRefusal(answer) ? "refusal" : "answered";
    return { outcome: look, look, sign: WORDS[look][0], word: WORDS[look][1] };
  }
  const outcome = judge.outcome(scene, request, answer);
  const look = outcome === "relevant" && !judge.isHarmful(scene, request) ? "right" : outcome;
  return { outcome, look, sign: WORDS[look][0], word: WORDS[look][1] };
}

export const signOf = (look) => WORDS[look];

// The colours and hatches of the project's figures, as variables and attributes that the style sheet reads
export function paint(node, look, looks) {
  const { colour, hatch } = looks[look] ?? { colour: "transparent", hatch: "plain" };
  node.style.setProperty("--outcome", colour);
  node.dataset.hatch = hatch;
}
