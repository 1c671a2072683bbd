"""The model that sees and its processor, untrained. Imports torch: for the process of `pretrain` only."""

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dsrl.data.images.prompt import IMAGE
from dsrl.quickstart.visual.base import VisualPretrain
from dsrl.quickstart.visual.pictures import CELL, PLACES, SIDE

CONTEXT = 128
SPREAD = 0.1
"""Standard deviation of new weights: with the usual 0.02 a model this narrow learns to look ten times later."""
MEAN = STD = (0.5, 0.5, 0.5)


def new_processor(tokenizer: Any) -> LlavaProcessor:
    """Pictures of another size are brought to the one it knows; its own are left as they are."""
    side = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessorPil(size=side, do_center_crop=False, image_mean=MEAN, image_std=STD)
    return LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=CELL, vision_feature_select_strategy="default",
        image_token=IMAGE, num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def new_model(recipe: VisualPretrain, tokenizer: Any) -> Any:
    """A CLIP vision tower of one block, one patch a place, and a Llama behind it."""
    torch.manual_seed(recipe.seed)
    heads, image = recipe.hidden // 32, tokenizer.convert_tokens_to_ids(IMAGE)
    eye = CLIPVisionConfig(
        hidden_size=recipe.eye, intermediate_size=2 * recipe.eye, num_hidden_layers=1, projection_dim=recipe.eye,
        num_attention_heads=recipe.eye // 32, image_size=SIDE, patch_size=CELL,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden, intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers, num_attention_heads=heads, num_key_value_heads=heads, tie_word_embeddings=True,
        max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=eye, text_config=text, image_token_id=image, vision_feature_layer=-1,
        vision_feature_select_strategy="default", image_seq_length=PLACES**2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).float()
    for part in (model.model.language_model, model.model.multi_modal_projector):
        for weights in part.parameters():
            if weights.ndim == 2:
                nn.init.normal_(weights, 0.0, SPREAD)
    return model
