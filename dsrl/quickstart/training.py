"""Training of the quickstarts' base models. Imports torch, so only the child process of `pretrain` imports it."""

import dataclasses
import json
import os
import random
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dsrl.core.digest import text_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.data.model import Model, Sampling
from dsrl.models.huggingface import Ask, draw, encode_prompt, load_model, load_tokenizer, write_tokenizer_check
from dsrl.quickstart.base import THREADS, Pretrain, Recipe
from dsrl.quickstart.base_model_checks import MAX_REPLY_TOKENS, SAMPLES, GradedReply, Validation, grade_reply
from dsrl.quickstart.documents import StoryDocument, answer_style, story_documents, story_prompt, validation_stories
from dsrl.quickstart.stories import Story
from dsrl.quickstart.testset import FOLDER, labelled_digests
from dsrl.quickstart.tokens import END, story_tokenizer, user_turn

CONTEXT = 256
NUM_VALIDATION = 300
VALIDATION_BATCH = 400
NUM_TOKENIZER_CHECKS = 8

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
Document = TypeVar("Document")


class Trainer(ABC, Generic[AnyRecipe, Document]):
    """A model, its optimizer, an endless corpus, and the digests of the documents read so far."""

    unit: ClassVar[str]
    """Plural of what a document is about."""
    warmup: ClassVar[int]
    """Steps."""

    def __init__(self, recipe: AnyRecipe, model: Any, processor: Any, corpus: Iterator[Document]) -> None:
        """`processor` is what is saved beside the model: its tokenizer, or a processor that contains it."""
        self.recipe, self.model, self.processor, self.corpus = recipe, model, processor, corpus
        self.optimizer = new_optimizer(model.parameters(), recipe.learning_rate)
        self.step = 0
        self.read: dict[str, None] = {}
        """Digests of the documents read, in order."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return getattr(self.processor, "tokenizer", self.processor)

    @abstractmethod
    def digest(self, document: Document) -> str: ...

    @abstractmethod
    def loss(self, batch: Sequence[Document]) -> torch.Tensor: ...

    @abstractmethod
    def validate(self) -> Validation: ...

    @abstractmethod
    def validation_prompts(self) -> list[str]: ...

    @abstractmethod
    def check_saved(self, folder: Path) -> None:
        """Raises `UserError` or AssertionError unless the folder loads with the same tokens and logits."""

    def train(self, num_steps: int) -> None:
        self.model.train()
        began, first = time.perf_counter(), self.step
        for _ in range(num_steps):
            self.step += 1
            loss = self.loss(self.next_batch())
            self.update(self.optimizer, loss, self.step, self.recipe.steps)
            if self.step % 100 == 0:
                rate = (self.step - first) / (time.perf_counter() - began)
                print(f"step {self.step:5d}  loss {loss.item():.3f}  {rate:.1f} steps/s", flush=True)

    def next_batch(self) -> list[Document]:
        batch = list(islice(self.corpus, self.recipe.batch))
        self.read.update(dict.fromkeys(self.digest(document) for document in batch))
        return batch

    def update(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, step: int, num_steps: int) -> None:
        """One optimizer step, with linear warm-up and then linear decay to a twentieth over `num_steps`."""
        schedule = min(1.0, step / self.warmup) * max(0.05, 1 - 0.95 * step / num_steps)
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [weights for group in optimizer.param_groups for weights in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    def train_until_ready(self) -> Validation:
        """Train until a validation passes, or to the last one. Raises `UserError` if pass@1 is still out of bounds."""
        recipe = self.recipe
        self.train(recipe.first_look)
        validation = self.validate()
        while faults := validation.faults(recipe):
            print(f"step {self.step:5d}  {validation}: {'; '.join(faults)}", flush=True)
            if self.step >= recipe.last_look:
                if not validation.out_of_bounds(recipe):
                    break
                raise UserError(
                    f"the base model is not usable after {self.step} steps",
                    got="; ".join(faults),
                    next_step="try another seed: model.prepare.seed=...",
                )
            self.train(recipe.look_every)
            validation = self.validate()
        print(f"step {self.step:5d}  {validation}: done", flush=True)
        return validation

    def save(self, validation: Validation, out: Path, seconds: float) -> None:
        """Write a draft folder, check that it loads as saved, and rename it to `out`."""
        draft = out.with_name(f".{out.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        tokenizer = self.tokenizer
        self.model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
        self.model.save_pretrained(draft)
        self.processor.save_pretrained(draft)
        prompts = self.validation_prompts()[:NUM_TOKENIZER_CHECKS]
        write_tokenizer_check(tokenizer, draft, [user_turn(prompt) for prompt in prompts])
        facts = {
            "recipe": dataclasses.asdict(self.recipe),
            "steps": self.step,
            "parameters": sum(weights.numel() for weights in self.model.parameters()),
            "vocabulary": len(tokenizer),
            self.unit: len(self.read),
            "validation": validation.figures(self.unit),
            "torch": torch.__version__,
        }
        (draft / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        digests = "".join(f"{digest}\n" for digest in self.read)
        (draft / "pretraining_digests.txt").write_text(digests, encoding="utf-8")
        self.check_saved(draft)
        draft.rename(out)
        print(f"saved {out} after {seconds:.0f} s", flush=True)


class StoryTrainer(Trainer[Pretrain, StoryDocument]):
    unit = "stories"
    warmup = 50

    def __init__(self, recipe: Pretrain) -> None:
        taken = labelled_digests(resource(FOLDER))
        stories = validation_stories(NUM_VALIDATION, recipe.seed, taken)
        self.stories = sorted(stories, key=lambda story: len(story.changes))
        """Short ones first, so that a validation batch has nearly one length."""
        rng = random.Random(f"corpus {recipe.seed}")
        corpus = story_documents(rng, recipe.worked, recipe.bare, frozenset(taken))
        tokenizer = story_tokenizer(CONTEXT)
        # A Llama, because for some other types transformers loads another tokenizer than was saved.
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(llama_config(recipe, tokenizer, CONTEXT)).float()
        super().__init__(recipe, model, tokenizer, corpus)

    def digest(self, document: StoryDocument) -> str:
        return text_digest(document.story.text)

    def loss(self, batch: Sequence[StoryDocument]) -> torch.Tensor:
        """Weighted cross-entropy of the next token: an answer's tokens weigh 1, a prompt's `prompt_loss`."""
        ids, weights = encode_stories(self.tokenizer, batch, self.recipe.prompt_loss)
        logits = self.model(input_ids=ids).logits
        losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weights = weights[:, 1:].flatten()
        return (losses * weights).sum() / weights.sum()

    def validate(self) -> Validation:
        self.model.eval()
        pairs = [(story, number) for story in self.stories for number in range(SAMPLES)]
        replies: list[GradedReply] = []
        for start in range(0, len(pairs), VALIDATION_BATCH):
            replies += self._sample(pairs[start : start + VALIDATION_BATCH])
        return Validation(replies)

    def _sample(self, pairs: Sequence[tuple[Story, int]]) -> list[GradedReply]:
        asks = [
            Ask(encode_prompt(self.tokenizer, story_prompt(story), "chat"), f"{story.text} {number}", MAX_REPLY_TOKENS)
            for story, number in pairs
        ]
        drawn = draw(self.model, self.tokenizer, asks, Sampling(temperature=1.0))
        texts = self.tokenizer.batch_decode([reply.ids for reply in drawn], skip_special_tokens=True)
        return [
            grade_reply(text, story.answer, len(story.changes), answer_style(text))
            for (story, _), text in zip(pairs, texts, strict=True)
        ]

    def validation_prompts(self) -> list[str]:
        return [story_prompt(story) for story in self.stories]

    def check_saved(self, folder: Path) -> None:
        model = Model(name="quickstart", path=str(folder), dtype="float32")
        ids = torch.tensor([load_tokenizer(model)(user_turn("Mia has 3 stamps."))["input_ids"]])
        with torch.no_grad():
            ours, loaded = self.model.eval()(input_ids=ids).logits, load_model(model)(input_ids=ids).logits
        assert torch.equal(ours, loaded), f"{folder} does not load as it was saved"


def pretrain(recipe: Pretrain, out: Path) -> None:
    """Train and save. Raises `UserError` if the model is not usable."""
    run(StoryTrainer, recipe, out)


def run(trainer_class: "type[Any]", recipe: Recipe, out: Path) -> None:
    began = time.perf_counter()
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    trainer = trainer_class(recipe)
    validation = trainer.train_until_ready()
    trainer.save(validation, out, time.perf_counter() - began)


def new_optimizer(parameters: Iterable[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def llama_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, context: int) -> LlamaConfig:
    heads = recipe.hidden // 32
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden, intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers, num_attention_heads=heads, num_key_value_heads=heads, tie_word_embeddings=True,
        max_position_embeddings=context, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def encode_stories(
    tokenizer: Any, batch: Sequence[StoryDocument], prompt_loss: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their loss weights, both (batch, seq), padded on the right with weight 0."""
    prompts, answers = [document.prompt for document in batch], [document.answer for document in batch]
    ids, prompt_lengths, lengths = encode_pairs(tokenizer, prompts, answers)
    position = torch.arange(ids.shape[1])
    weights = torch.where(position < lengths, 1.0, 0.0)
    return ids, weights.masked_fill(position < prompt_lengths, prompt_loss)


def encode_pairs(
    tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids (batch, seq) of prompt and answer, padded on the right; then the lengths of the prompts and of both
    together, each (batch, 1)."""
    prompt_ids = tokenizer([user_turn(prompt) for prompt in prompts])["input_ids"]
    answer_ids = tokenizer([answer + END for answer in answers])["input_ids"]
    rows = [[*prompt, *answer] for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    prompt_lengths, lengths = ([[len(row)] for row in group] for group in (prompt_ids, rows))
    return ids, torch.tensor(prompt_lengths), torch.tensor(lengths)
