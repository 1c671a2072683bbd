"""Run by veRL's own interpreter: what its data set makes of exported rows, for a tiny model of the LLaVA kind.

`verl_rows.py ROWS.parquet GRADER.json CACHE` prints, last, one JSON object a row.
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
"""Pixels of a picture as the model sees it, and of a patch, which is a token."""


def processor() -> LlavaProcessor:
    """A letter a token; pictures without torchvision."""
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


def told(row: dict[str, Any], processor: LlavaProcessor, reward: Any) -> dict[str, Any]:
    """As the agent loop goes on: template, pictures, tokens; and the reward of a right and of a wrong reply."""
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
    # its own filter reads pictures with qwen_vl_utils, and where that isn't installed drops every row without an error
    config = OmegaConf.create({"cache_dir": cache, "image_key": "images", "filter_overlong_prompts": False})
    data = RLHFDataset(data_files=[path], tokenizer=made.tokenizer, config=config, processor=made)
    rows = [data[number] for number in range(len(data))]
    assert len(collate_fn(rows)["raw_prompt"]) == len(rows)
    kwargs = {"reward_kwargs": {"grader": grader}}
    function = {"path": "pkg://dsrl.cli.export.reward", "name": "compute_score", **kwargs}
    reward = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": function}}))
    for row in rows:
        print(json.dumps(told(row, made, reward)))


if __name__ == "__main__":
    main(*sys.argv[1:])
