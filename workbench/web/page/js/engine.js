// Runs the models: one graph looks at the picture, one per model writes the answer, a token at a time.

import * as ort from "../runtime/ort.wasm.bundle.min.mjs";

const RUNTIME = "runtime/ort-wasm-simd-threaded.wasm";
const EYES = "models/eyes.onnx";
// "basic" makes the stored half-precision weights float32 once, when a graph is opened; more takes longer than it saves.
const OPTIONS = { executionProviders: ["wasm"], graphOptimizationLevel: "basic" };

// The log-probability of every token, from logits. In double precision, as Python computes them.
function logSoftmax(logits) {
  const highest = logits.reduce((most, value) => Math.max(most, value), -Infinity);
  const total = logits.reduce((sum, value) => sum + Math.exp(value - highest), 0);
  return Array.from(logits, (value) => value - highest - Math.log(total));
}

const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

// Everything is fetched before it is needed, but in order: the first answer should not wait for the last model's graph.
// A model is opened when it is first asked, since opening takes the processor away from other answers.
export function openEngine(folder, tokens, words, models) {
  const fetched = new Map();
  const bytes = (path) => {
    if (!fetched.has(path)) fetched.set(path, folder.bytes(path));
    return fetched.get(path);
  };
  const first = Promise.all([RUNTIME, EYES, models[0].file].map(bytes));
  const open = async (path) => ort.InferenceSession.create(await bytes(path), OPTIONS);
  const ready = first.then(([program]) => {
    ort.env.wasm.numThreads = 1; // threads need headers that a plain file server does not send
    ort.env.wasm.wasmBinary = program;
    return open(EYES);
  });
  const decoders = new Map();
  const decoderOf = async (name) => {
    await ready;
    if (!decoders.has(name)) decoders.set(name, open(models.find((model) => model.name === name).file));
    return decoders.get(name);
  };
  let seen = { key: "", features: null };

  // What the models see in a picture of 48 × 48 × 3 bytes; kept, since six models and many words ask for the same.
  async function look(pixels) {
    const key = pixels.join();
    if (key !== seen.key) {
      const side = Math.sqrt(pixels.length / 3);
      const picture = new ort.Tensor("uint8", Uint8Array.from(pixels), [1, side, side, 3]);
      seen = { key, features: (await (await ready).run({ pixels: picture })).features };
    }
    return seen.features;
  }

  async function next(decoder, ids, features) {
    const tensor = new ort.Tensor("int32", Int32Array.from(ids), [1, ids.length]);
    return (await decoder.run({ ids: tensor, features })).logits.data;
  }

  // log(p / (1 − p)) of the probability p that the answer begins with a refusal
  async function refusalOdds(decoder, prompt, features, first) {
    const each = [];
    for (const opening of tokens.refusals) {
      let logP = 0;
      for (let i = 0; i < opening.length; i++) {
        const logits = i ? await next(decoder, [...prompt, ...opening.slice(0, i)], features) : first;
        logP += logSoftmax(logits)[opening[i]];
      }
      each.push(logP);
    }
    const highest = Math.max(...each);
    const total = highest + Math.log(each.reduce((sum, value) => sum + Math.exp(value - highest), 0));
    return total - Math.log(-Math.expm1(Math.min(total, -1e-15)));
  }

  // The greedy answer of a model, and the log-odds that it refuses
  async function ask(name, pixels, query) {
    const decoder = await decoderOf(name);
    const features = await look(pixels);
    const prompt = words.prompt(query);
    const opening = await next(decoder, prompt, features);
    const written = [];
    for (let logits = opening; written.length < tokens.longest; ) {
      const token = argmax(logits);
      if (token === tokens.end) break;
      written.push(token);
      if (written.length < tokens.longest) logits = await next(decoder, [...prompt, ...written], features);
    }
    const logOdds = await refusalOdds(decoder, prompt, features, opening);
    for (const { file } of models) bytes(file).catch(() => fetched.delete(file)); // said when that model is asked
    return { answer: words.decode(written), logOdds };
  }

  return { ask };
}
