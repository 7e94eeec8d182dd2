"""The same numbers computed simply: the whole model on every prompt, without caches."""

import torch

from workbench.models.vlm import prompt_batch


def example_of(few, harmful=False, request="name"):
    """The first example of a kind."""
    return next(e for e in few if e.harmful == harmful and e.request == request)


def refusal_logit(vlm, image, ids):
    """log p − log(1 − p) of “sorry” as the first word, for one row of ids, in float64 from the logits on."""
    batch = prompt_batch(vlm, [image], ["What is it?"])
    with torch.inference_mode():
        logits = vlm.model(
            input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], pixel_values=batch["pixel_values"]
        ).logits
    p = logits[0, -1].double().softmax(-1)[vlm.processor.tokenizer.convert_tokens_to_ids("sorry")]
    return (p.log() - (1 - p).log()).item()


def opening_logprob(vlm, batch, tokens):
    """log p of tokens after prompts, by running the whole model on both without a cache: (N,)."""
    after = torch.tensor(tokens).expand(len(batch["input_ids"]), -1)
    inputs = dict(batch) | {"input_ids": torch.cat([batch["input_ids"], after], dim=1)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in batch:
            later = int(vlm.model.config.model_type == "paligemma")  # its tokens of type 0 see what comes after them
            inputs[name] = torch.cat([batch[name], torch.full_like(after, later)], dim=1)
    logits = vlm.model(**inputs, use_cache=False).logits[:, -len(tokens) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, after[..., None]).sum(dim=(1, 2))
