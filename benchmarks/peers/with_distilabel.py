"""distilabel: a pipeline of two generations, the second of which requests 16 answers at once."""

import logging
import os
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import common
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration


def llm(asked) -> OpenAILLM:
    return OpenAILLM(
        model=common.MODEL,
        base_url=asked.url,
        api_key=common.KEY,
        max_retries=common.RETRIES,
        timeout=common.TIMEOUT,
        generation_kwargs={"temperature": common.TEMPERATURE},
    )


def main() -> None:
    asked = common.arguments()
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    with Pipeline(name="peer", cache_dir=asked.folder) as pipeline:
        rows = [{"instruction": common.question(number)} for number in range(asked.count)]
        load = LoadDataFromDicts(data=rows, batch_size=128)
        invent = TextGeneration(name="invent", llm=llm(asked), input_batch_size=128, output_mappings=_KEPT)
        if asked.work == "chain":
            template = common.vote("{{ q }}")
            vote = TextGeneration(
                name="vote",
                llm=llm(asked),
                template=template,
                columns=["q"],
                num_generations=common.VOTES,
                group_generations=True,
                input_batch_size=128,
            )
            load >> invent >> vote
        else:
            load >> invent
    made = pipeline.run(use_cache=True)
    common.tell(started, len(made["default"]["train"]))


_KEPT = {"generation": "q", "model_name": "inventor"}

if __name__ == "__main__":
    main()
