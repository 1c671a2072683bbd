"""Training of the visual quickstart's base model. Imports torch, so only the child process of `pretrain` imports it."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dsrl.core.resources import resource
from dsrl.data.model import Model, Sampling
from dsrl.data.sample import IMAGE
from dsrl.models import huggingface, vision
from dsrl.quickstart.base_model_checks import MAX_REPLY_TOKENS, SAMPLES, GradedReply, Validation, grade_reply
from dsrl.quickstart.training import Trainer, encode_pairs, llama_config, new_optimizer, run
from dsrl.quickstart.visual.base import VisualPretrain
from dsrl.quickstart.visual.documents import SceneDocument, answer_style, question_prompt, scene_documents
from dsrl.quickstart.visual.scenes import CELL, COLOURS, KINDS, PLACES, SIDE, Scene, Shape
from dsrl.quickstart.visual.testset import FOLDER, LabelledScene, labelled_digests, validation_scenes
from dsrl.quickstart.visual.tokens import visual_tokenizer

CONTEXT = 128
NUM_VALIDATION = 240
VALIDATION_BATCH = 240
INITIAL_STD = 0.1
"""Standard deviation of new weights: with the usual 0.02 a model this narrow learns to use images ten times later."""
MEAN = STD = (0.5, 0.5, 0.5)
CELL_CONTENTS = [None, *(Shape(colour, kind) for colour in COLOURS for kind in KINDS)]


class SceneTrainer(Trainer[VisualPretrain, SceneDocument]):
    unit = "pictures"
    warmup = 30

    def __init__(self, recipe: VisualPretrain) -> None:
        taken = labelled_digests(resource(FOLDER))
        self.items = validation_scenes(NUM_VALIDATION, recipe.seed, taken)
        rng = random.Random(f"visual corpus {recipe.seed}")
        corpus = scene_documents(rng, recipe.named, recipe.worked, recipe.bare, frozenset(taken))
        processor = new_processor(visual_tokenizer(CONTEXT))
        super().__init__(recipe, new_model(recipe, processor.tokenizer), processor, corpus)
        self._train_vision_tower()

    def _train_vision_tower(self) -> None:
        """Train the vision tower to classify what is in each cell, with a head that is discarded afterwards."""
        tower, head = self.model.model.vision_tower, nn.Linear(self.recipe.eye, len(CELL_CONTENTS))
        optimizer = new_optimizer([*tower.parameters(), *head.parameters()], self.recipe.learning_rate)
        for step in range(1, self.recipe.eye_steps + 1):
            batch = self.next_batch()
            labels = torch.tensor(
                [[CELL_CONTENTS.index(shape) for shape in document.scene.grid()] for document in batch]
            )
            cells = tower(pixel_values([document.scene for document in batch])).last_hidden_state[:, 1:]
            loss = functional.cross_entropy(head(cells).flatten(0, 1), labels.flatten())
            self.update(optimizer, loss, step, self.recipe.eye_steps)
        print(f"vision tower after {self.recipe.eye_steps} steps: loss {loss.item():.4f}", flush=True)

    def digest(self, document: SceneDocument) -> str:
        return document.scene.digest()

    def loss(self, batch: Sequence[SceneDocument]) -> torch.Tensor:
        """Cross-entropy of the answers' tokens."""
        ids, in_prompt = encode_scenes(self.tokenizer, batch)
        mask = (ids != self.tokenizer.pad_token_id).long()
        images = pixel_values([document.scene for document in batch])
        logits = self.model(input_ids=ids, pixel_values=images, attention_mask=mask).logits
        labels = ids.masked_fill((mask == 0) | in_prompt, -100)
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)

    def validate(self) -> Validation:
        self.model.eval()
        pairs = [(item, number) for item in self.items for number in range(SAMPLES)]
        replies: list[GradedReply] = []
        for start in range(0, len(pairs), VALIDATION_BATCH):
            replies += self._sample(pairs[start : start + VALIDATION_BATCH])
        return Validation(replies)

    def _sample(self, pairs: Sequence[tuple[LabelledScene, int]]) -> list[GradedReply]:
        shown = [vision.Shown(question_prompt(item.question.text), (item.scene.draw(),)) for item, _ in pairs]
        inputs = vision.encode(self.processor, shown, "chat")
        streams = [f"{item.digest} {number}" for item, number in pairs]
        limits, sampling = [MAX_REPLY_TOKENS] * len(pairs), Sampling(temperature=1.0)
        drawn = huggingface.draw_from(self.model, self.tokenizer, inputs, streams, limits, sampling)
        texts = self.tokenizer.batch_decode([reply.ids for reply in drawn], skip_special_tokens=True)
        return [
            grade_reply(text, item.answer, item.question.level, answer_style(text))
            for (item, _), text in zip(pairs, texts, strict=True)
        ]

    def validation_prompts(self) -> list[str]:
        return [question_prompt(item.question.text) for item in self.items]

    def check_saved(self, folder: Path) -> None:
        item, model = self.items[0], Model(name="quickstart_visual", path=str(folder), dtype="float32")
        huggingface.load_tokenizer(model)
        shown = vision.Shown(question_prompt(item.question.text), (item.scene.draw(),))
        inputs = vision.encode(vision.load_processor(model), [shown], "chat")
        ids, in_prompt = encode_scenes(self.tokenizer, [SceneDocument(item.scene, shown.text, "")])
        assert torch.equal(inputs["input_ids"], ids[in_prompt][None]), f"{folder}: other tokens than in training"
        assert torch.allclose(inputs["pixel_values"], pixel_values([item.scene]), atol=1e-5), f"{folder}: other pixels"
        with torch.no_grad():
            ours, loaded = self.model.eval()(**inputs).logits, huggingface.load_model(model)(**inputs).logits
        assert torch.equal(ours, loaded), f"{folder} does not load as it was saved"


def pretrain(recipe: VisualPretrain, out: Path) -> None:
    """Train and save. Raises `UserError` if the model is not usable."""
    run(SceneTrainer, recipe, out)


def new_processor(tokenizer: Any) -> LlavaProcessor:
    """The processor resizes images to the model's size; those of this size stay unchanged."""
    size = {"height": SIDE, "width": SIDE}
    image_processor = CLIPImageProcessorPil(size=size, do_center_crop=False, image_mean=MEAN, image_std=STD)
    return LlavaProcessor(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=CELL, image_token=IMAGE,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def new_model(recipe: VisualPretrain, tokenizer: Any) -> Any:
    """A CLIP vision tower of one block, with one patch per cell, and a Llama."""
    torch.manual_seed(recipe.seed)
    vision_config = CLIPVisionConfig(
        hidden_size=recipe.eye, intermediate_size=2 * recipe.eye, num_hidden_layers=1, projection_dim=recipe.eye,
        num_attention_heads=recipe.eye // 32, image_size=SIDE, patch_size=CELL,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision_config, text_config=llama_config(recipe, tokenizer, CONTEXT),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE), vision_feature_layer=-1,
        vision_feature_select_strategy="default", image_seq_length=PLACES**2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).float()
    for part in (model.model.language_model, model.model.multi_modal_projector):
        for weights in part.parameters():
            if weights.ndim == 2:
                nn.init.normal_(weights, 0.0, INITIAL_STD)
    return model


def pixel_values(scenes: Sequence[Scene]) -> torch.Tensor:
    """What the processor would return, but faster: (batch, 3, side, side) from -1 to 1."""
    raw = torch.stack([torch.frombuffer(bytearray(scene.draw().tobytes()), dtype=torch.uint8) for scene in scenes])
    return (raw.view(len(scenes), SIDE, SIDE, 3).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def encode_scenes(tokenizer: Any, batch: Sequence[SceneDocument]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the right, and a mask of the prompts' tokens; both (batch, seq)."""
    prompts = [document.prompt.replace(IMAGE, IMAGE * PLACES**2) for document in batch]
    ids, prompt_lengths, _ = encode_pairs(tokenizer, prompts, [document.answer for document in batch])
    return ids, torch.arange(ids.shape[1]) < prompt_lengths
