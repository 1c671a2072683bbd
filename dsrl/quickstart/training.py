"""How the quickstart's base model is trained. Imports torch: for the process of `dsrl.quickstart.pretrain` only."""

import dataclasses
import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dsrl.core.digest import text_digest
from dsrl.core.resources import resource
from dsrl.data.model import Model
from dsrl.models.huggingface import load_model, load_tokenizer, write_tokenizer_check
from dsrl.quickstart.base import THREADS, Pretrain
from dsrl.quickstart.base_model_checks import Measured, measure
from dsrl.quickstart.documents import Document, documents, prompt, validation
from dsrl.quickstart.testset import FOLDER, labelled
from dsrl.quickstart.tokens import END, build, turn
from dsrl.quickstart.train_until_fit import until_fit

CONTEXT = 256
WARMUP = 50


class Trainer:
    """The model, what it has read so far, and the optimizer."""

    def __init__(self, recipe: Pretrain, corpus: Iterator[Document]) -> None:
        self.recipe, self.corpus = recipe, corpus
        self.tokenizer = build(CONTEXT)
        self.model = new_model(recipe, self.tokenizer)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.step = 0
        self.read: dict[str, None] = {}
        """Digests of the stories read, in order."""

    def train(self, steps: int) -> None:
        """Go on for so many steps."""
        self.model.train()
        began, first = time.perf_counter(), self.step
        for _ in range(steps):
            loss = self._advance()
            if self.step % 100 == 0:
                rate = (self.step - first) / (time.perf_counter() - began)
                print(f"step {self.step:5d}  loss {loss:.3f}  {rate:.1f} steps/s", flush=True)

    def _advance(self) -> float:
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        batch = list(islice(self.corpus, self.recipe.batch))
        self.read.update(dict.fromkeys(text_digest(document.story.text) for document in batch))
        loss = self._loss(batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def _schedule(self) -> float:
        return min(1.0, self.step / WARMUP) * max(0.05, 1 - 0.95 * self.step / self.recipe.steps)

    def _loss(self, batch: Sequence[Document]) -> torch.Tensor:
        """Cross-entropy of every next token, an answer's counting 1 and a prompt's `prompt_loss`."""
        ids, weights = encode(self.tokenizer, batch, self.recipe.prompt_loss)
        logits = self.model(input_ids=ids).logits
        losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weights = weights[:, 1:].flatten()
        return (losses * weights).sum() / weights.sum()


def new_model(recipe: Pretrain, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Untrained weights. A Llama, because for some other types transformers loads another tokenizer than was saved."""
    torch.manual_seed(recipe.seed)
    heads = recipe.hidden // 32
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden, intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers, num_attention_heads=heads, num_key_value_heads=heads, tie_word_embeddings=True,
        max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).float()


def encode(tokenizer: Any, batch: Sequence[Document], prompt_loss: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their weights in the loss, both (documents, longest); padded on the right with weight 0."""
    prompts = tokenizer([turn(document.prompt) for document in batch])["input_ids"]
    answers = tokenizer([document.answer + END for document in batch])["input_ids"]
    width = max(len(asked) + len(answer) for asked, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(batch), width), tokenizer.pad_token_id)
    weights = torch.zeros(len(batch), width)
    for row, (asked, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(asked) + len(answer)] = torch.tensor(asked + answer)
        weights[row, : len(asked)] = prompt_loss
        weights[row, len(asked) : len(asked) + len(answer)] = 1.0
    return ids, weights


def pretrain(recipe: Pretrain, out: Path) -> None:
    """Train until the gate opens, or to the last look, and save. Raises `UserError` if the pass rate is unfit."""
    began = time.perf_counter()
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    taken = labelled(resource(FOLDER))
    stories = validation(300, recipe.seed, taken)
    corpus = documents(random.Random(f"corpus {recipe.seed}"), recipe.worked, recipe.bare, frozenset(taken))
    trainer = Trainer(recipe, corpus)
    measured = until_fit(trainer, recipe, lambda: measure(trainer.model, trainer.tokenizer, stories))
    save(trainer, measured, out, time.perf_counter() - began)


def save(trainer: Trainer, measured: Measured, out: Path, seconds: float) -> None:
    """Write the folder beside its place, check that it loads as it was saved, and move it there."""
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    tokenizer = trainer.tokenizer
    trainer.model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    trainer.model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    write_tokenizer_check(tokenizer, draft, [turn(prompt(story)) for story in measured.stories[:8]])
    facts = {
        "recipe": dataclasses.asdict(trainer.recipe),
        "steps": trainer.step,
        "seconds": round(seconds, 1),
        "parameters": sum(weights.numel() for weights in trainer.model.parameters()),
        "vocabulary": len(tokenizer),
        "stories": len(trainer.read),
        "validation": measured.facts(),
        "torch": torch.__version__,
    }
    (draft / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (draft / "pretraining_digests.txt").write_text("".join(f"{mark}\n" for mark in trainer.read), encoding="utf-8")
    check(trainer, draft)
    draft.rename(out)
    print(f"saved {out} after {seconds:.0f} s", flush=True)


def check(trainer: Trainer, folder: Path) -> None:
    """The folder gives back the same tokens (`UserError` otherwise) and the same logits."""
    model = Model(name="quickstart", path=str(folder), dtype="float32")
    ids = torch.tensor([load_tokenizer(model)(turn("Mia has 3 stamps."))["input_ids"]])
    with torch.no_grad():
        kept, loaded = trainer.model.eval()(input_ids=ids).logits, load_model(model)(input_ids=ids).logits
    assert torch.equal(kept, loaded), f"{folder} does not load as it was saved"
