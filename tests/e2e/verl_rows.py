"""Load exported rows with veRL's own data set class, for a tiny LLaVA. Runs in veRL's environment.

`verl_rows.py ROWS.parquet GRADER.json CACHE` prints one JSON object per row at the end.
"""

import json
import sys
from typing import Any

from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)
SIDE, PATCH = 48, 8
"""Side of an image and of a patch (one token), in pixels."""


def processor() -> LlavaProcessor:
    """One token per letter; images without torchvision."""
    letters = ["<unk>", "<image>", "<end>", *map(chr, range(32, 127)), "\n"]
    words = Tokenizer(models.WordLevel({letter: place for place, letter in enumerate(letters)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    special = {"eos_token": "<end>", "pad_token": "<end>", "additional_special_tokens": ["<image>"]}
    size = {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, **special),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def describe(row: dict[str, Any], processor: LlavaProcessor, reward: Any) -> dict[str, Any]:
    """Template, images and tokens as in veRL's agent loop, and the rewards of a correct and a wrong reply."""
    content = row["raw_prompt"][0]["content"]
    images = [part["image"] for part in content if part["type"] == "image"] if isinstance(content, list) else []
    text = processor.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
    tokens = processor(text=[text], images=images or None, return_tensors="pt")["input_ids"][0]
    answer, extra = row["reward_model"]["ground_truth"], row["extra_info"]
    scores = [reward(row["data_source"], f"#### {said}", answer, extra)["score"] for said in (answer, f"{answer}1")]
    return {
        "id": extra["id"],
        "text": text,
        "sizes": [image.size for image in images],
        "picture_tokens": int((tokens == 1).sum()),
        "scores": scores,
    }


def main(path: str, grader: str, cache: str) -> None:
    made = processor()
    # veRL's filter reads images with qwen_vl_utils; without that package it silently drops every row
    config = OmegaConf.create({"cache_dir": cache, "image_key": "images", "filter_overlong_prompts": False})
    data = RLHFDataset(data_files=[path], tokenizer=made.tokenizer, config=config, processor=made)
    rows = [data[number] for number in range(len(data))]
    assert len(collate_fn(rows)["raw_prompt"]) == len(rows)
    kwargs = {"reward_kwargs": {"grader": grader}}
    function = {"path": "pkg://dsrl.cli.export.reward", "name": "compute_score", **kwargs}
    reward = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": function}}))
    for row in rows:
        print(json.dumps(describe(row, made, reward)))


if __name__ == "__main__":
    main(*sys.argv[1:])
