// Runs the models: one graph looks at the picture, one per model writes the answer, a token at a time.

import * as ort from "../runtime/ort.wasm.bundle.min.mjs";
import { tokenizer } from "./tokenizer.js";

const OPTIONS = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };

// The log-probability of every token, from logits. In double precision, as Python computes them.
function logSoftmax(logits) {
  const highest = logits.reduce((most, value) => Math.max(most, value), -Infinity);
  const total = logits.reduce((sum, value) => sum + Math.exp(value - highest), 0);
  return Array.from(logits, (value) => value - highest - Math.log(total));
}

const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

export async function openEngine(folder, tokens, models) {
  ort.env.wasm.numThreads = 1; // threads need headers that a plain file server does not send
  ort.env.wasm.wasmBinary = await folder.bytes("runtime/ort-wasm-simd-threaded.wasm");
  const open = async (path) => ort.InferenceSession.create(await folder.bytes(path), OPTIONS);
  const words = tokenizer(tokens);
  const eyes = await open("models/eyes.onnx");
  const decoders = new Map(); // opened one by one, so that the first can answer while the others load
  for (const { name } of models) decoders.set(name, Promise.withResolvers?.() ?? withResolvers());
  openAll(models, decoders, open);
  let seen = { key: "", features: null };

  // What the models see in a picture of 48 × 48 × 3 bytes; kept, since six models and many words ask for the same.
  async function look(pixels) {
    const key = pixels.join();
    if (key !== seen.key) {
      const side = Math.sqrt(pixels.length / 3);
      const picture = new ort.Tensor("uint8", Uint8Array.from(pixels), [1, side, side, 3]);
      seen = { key, features: (await eyes.run({ pixels: picture })).features };
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
    const decoder = await decoders.get(name).promise;
    const features = await look(pixels);
    const prompt = words.prompt(query);
    const first = await next(decoder, prompt, features);
    const written = [];
    for (let logits = first; written.length < tokens.longest; ) {
      const token = argmax(logits);
      if (token === tokens.end) break;
      written.push(token);
      if (written.length < tokens.longest) logits = await next(decoder, [...prompt, ...written], features);
    }
    return { answer: words.decode(written), logOdds: await refusalOdds(decoder, prompt, features, first) };
  }

  return { ask, words };
}

async function openAll(models, decoders, open) {
  for (const { name, file } of models) {
    try {
      decoders.get(name).resolve(await open(file));
    } catch (error) {
      decoders.get(name).reject(error);
    }
  }
}

function withResolvers() {
  const deferred = {};
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }));
  return deferred;
}
