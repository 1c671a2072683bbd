"""How the model that sees is trained. Imports torch: for the process of `dsrl.quickstart.visual.pretrain` only."""

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
from torch import nn
from torch.nn import functional

from dsrl.core.resources import resource
from dsrl.data.images.prompt import IMAGE
from dsrl.data.model import Model
from dsrl.models import huggingface, vision
from dsrl.quickstart.base import THREADS
from dsrl.quickstart.tokens import END
from dsrl.quickstart.train_until_fit import until_fit
from dsrl.quickstart.visual.base import VisualPretrain
from dsrl.quickstart.visual.base_model_checks import Measured, measure
from dsrl.quickstart.visual.documents import Document, documents, grid, mark, prompt
from dsrl.quickstart.visual.model import CONTEXT, new_model, new_processor
from dsrl.quickstart.visual.pictures import COLOURS, KINDS, PLACES, Scene, Shape
from dsrl.quickstart.visual.testset import FOLDER, Labelled, labelled, validation
from dsrl.quickstart.visual.tokens import build, turn

WARMUP = 30
VALIDATION = 240
KNOWN = [None, *(Shape(colour, kind) for colour in COLOURS for kind in KINDS)]
"""What can stand at a place."""


class Trainer:
    """The model, what it has seen so far, and the optimizer."""

    def __init__(self, recipe: VisualPretrain, corpus: Iterator[Document]) -> None:
        self.recipe, self.corpus = recipe, corpus
        self.processor = new_processor(build(CONTEXT))
        self.model = new_model(recipe, self.processor.tokenizer)
        self.seen: dict[str, None] = {}
        """Marks of the pictures seen, in order."""
        self.step = 0

    def open_eye(self) -> None:
        """The vision tower learns to name what stands at each place, with a head that is thrown away afterwards."""
        tower, head = self.model.model.vision_tower, nn.Linear(self.recipe.eye, len(KNOWN))
        optimizer = adam([*tower.parameters(), *head.parameters()], self.recipe.learning_rate)
        for step in range(1, self.recipe.eye_steps + 1):
            batch = self._batch()
            things = torch.tensor([[KNOWN.index(shape) for shape in grid(document.scene)] for document in batch])
            places = tower(pixels([document.scene for document in batch])).last_hidden_state[:, 1:]
            loss = functional.cross_entropy(head(places).flatten(0, 1), things.flatten())
            advance(optimizer, loss, self._rate(step, self.recipe.eye_steps))
        print(f"the eye after {self.recipe.eye_steps} steps: loss {loss.item():.4f}", flush=True)
        self.optimizer = adam(list(self.model.parameters()), self.recipe.learning_rate)

    def train(self, steps: int) -> None:
        """Go on for so many steps."""
        self.model.train()
        began, first = time.perf_counter(), self.step
        for _ in range(steps):
            self.step += 1
            loss = self._loss(self._batch())
            advance(self.optimizer, loss, self._rate(self.step, self.recipe.steps))
            if self.step % 100 == 0:
                rate = (self.step - first) / (time.perf_counter() - began)
                print(f"step {self.step:5d}  loss {loss.item():.3f}  {rate:.1f} steps/s", flush=True)

    def _batch(self) -> list[Document]:
        batch = list(islice(self.corpus, self.recipe.batch))
        self.seen.update(dict.fromkeys(mark(document.scene) for document in batch))
        return batch

    def _rate(self, step: int, steps: int) -> float:
        return self.recipe.learning_rate * min(1.0, step / WARMUP) * max(0.05, 1 - 0.95 * step / steps)

    def _loss(self, batch: Sequence[Document]) -> torch.Tensor:
        """Cross-entropy of an answer's tokens."""
        ids, asked = encode(self.processor.tokenizer, batch)
        shown = pixels([document.scene for document in batch])
        mask = (ids != self.processor.tokenizer.pad_token_id).long()
        logits = self.model(input_ids=ids, pixel_values=shown, attention_mask=mask).logits
        labels = ids.masked_fill((mask == 0) | asked, -100)
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def adam(weights: list[Any], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def advance(optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> None:
    """One step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_([weights for group in optimizer.param_groups for weights in group["params"]], 1.0)
    optimizer.step()


def pixels(scenes: Sequence[Scene]) -> torch.Tensor:
    """As the processor makes them, and faster: (pictures, 3, side, side) from -1 to 1."""
    size = scenes[0].draw().size
    raw = torch.stack([torch.frombuffer(bytearray(scene.draw().tobytes()), dtype=torch.uint8) for scene in scenes])
    return (raw.view(len(scenes), size[1], size[0], 3).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def encode(tokenizer: Any, batch: Sequence[Document]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the right, and which of them are the prompt's; both (documents, longest)."""
    pieces = IMAGE * PLACES**2
    prompts = tokenizer([turn(document.prompt).replace(IMAGE, pieces) for document in batch])["input_ids"]
    answers = tokenizer([document.answer + END for document in batch])["input_ids"]
    width = max(len(asked) + len(answer) for asked, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(batch), width), tokenizer.pad_token_id)
    for row, (asked, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(asked) + len(answer)] = torch.tensor(asked + answer)
    lengths = torch.tensor([[len(asked)] for asked in prompts])
    return ids, torch.arange(width)[None, :] < lengths


def pretrain(recipe: VisualPretrain, out: Path) -> None:
    """Train until the gate opens, or to the last look, and save. Raises `UserError` if the pass rate is unfit."""
    began = time.perf_counter()
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    taken = labelled(resource(FOLDER))
    items = validation(VALIDATION, recipe.seed, taken)
    rng = random.Random(f"visual corpus {recipe.seed}")
    trainer = Trainer(recipe, documents(rng, recipe.named, recipe.worked, recipe.bare, frozenset(taken)))
    trainer.open_eye()
    measured = until_fit(trainer, recipe, lambda: measure(trainer.model, trainer.processor, items))
    save(trainer, measured, items, out, time.perf_counter() - began)


def save(trainer: Trainer, measured: Measured, items: Sequence[Labelled], out: Path, seconds: float) -> None:
    """Write the folder beside its place, check that it loads as it was saved, and move it there."""
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    tokenizer = trainer.processor.tokenizer
    trainer.model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    trainer.model.save_pretrained(draft)
    trainer.processor.save_pretrained(draft)
    huggingface.write_tokenizer_check(tokenizer, draft, [turn(prompt(item.question.text)) for item in items[:8]])
    facts = {
        "recipe": dataclasses.asdict(trainer.recipe),
        "steps": trainer.step,
        "seconds": round(seconds, 1),
        "parameters": sum(weights.numel() for weights in trainer.model.parameters()),
        "vocabulary": len(tokenizer),
        "pictures": len(trainer.seen),
        "validation": measured.facts(),
        "torch": torch.__version__,
    }
    (draft / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (draft / "pretraining_digests.txt").write_text("".join(f"{found}\n" for found in trainer.seen), encoding="utf-8")
    check(trainer, items[0], draft)
    draft.rename(out)
    print(f"saved {out} after {seconds:.0f} s", flush=True)


def check(trainer: Trainer, item: Labelled, folder: Path) -> None:
    """The folder gives back the same tokens (`UserError` otherwise), the pixels it was trained on, and the logits."""
    model = Model(name="quickstart_visual", path=str(folder), dtype="float32")
    huggingface.load_tokenizer(model)
    shown = vision.Shown(prompt(item.question.text), (item.scene.draw(),))
    inputs = vision.encode(vision.load_processor(model), [shown], "chat")
    ids, asked = encode(trainer.processor.tokenizer, [Document(item.scene, shown.text, "")])
    assert torch.equal(inputs["input_ids"], ids[asked][None]), f"{folder}: other tokens than in training"
    assert torch.allclose(inputs["pixel_values"], pixels([item.scene]), atol=1e-5), f"{folder}: other pixels"
    with torch.no_grad():
        kept, loaded = trainer.model.eval()(**inputs).logits, huggingface.load_model(model)(**inputs).logits
    assert torch.equal(kept, loaded), f"{folder} does not load as it was saved"
