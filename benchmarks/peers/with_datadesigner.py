"""NVIDIA DataDesigner: a seed table, an LLM column for the question, a custom column for the 16 votes."""

import logging
import os
import time
import warnings

os.environ["NEMO_TELEMETRY_ENABLED"] = "false"
warnings.filterwarnings("ignore")

import common  # noqa: E402
import data_designer.config as dd  # noqa: E402
import pandas  # noqa: E402
from data_designer.engine.models.utils import ChatMessage  # noqa: E402
from data_designer.interface import DataDesigner  # noqa: E402

logging.disable(logging.WARNING)


@dd.custom_column_generator(required_columns=["q"], model_aliases=["m"])
async def votes(row: dict, generator_params: None, models: dict) -> dict:  # noqa: ARG001
    answer = await models["m"].acompletion([ChatMessage.as_user(common.vote(row["q"]))], n=common.VOTES)
    row["votes"] = [choice.message.content for choice in answer.choices]
    return row


def main() -> None:
    asked = common.arguments()
    started = time.perf_counter()
    provider = dd.ModelProvider(name="p", endpoint=asked.url, provider_type="openai", api_key=common.KEY)
    parameters = dd.ChatCompletionInferenceParams(
        temperature=common.TEMPERATURE, max_parallel_requests=asked.concurrency, timeout=common.TIMEOUT
    )
    model = dd.ModelConfig(
        alias="m", model=common.MODEL, provider="p", inference_parameters=parameters, skip_health_check=True
    )
    designer = DataDesigner(artifact_path=asked.folder, model_providers=[provider])
    designer.set_run_config(dd.RunConfig(disable_early_shutdown=True, progress_interval=600.0, otel_metrics_port=None))
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    prompts = pandas.DataFrame({"prompt": [common.question(number) for number in range(asked.count)]})
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=prompts))
    builder.add_column(dd.LLMTextColumnConfig(name="q", prompt="{{ prompt }}", model_alias="m"))
    if asked.work == "chain":
        builder.add_column(dd.CustomColumnConfig(name="votes", generator_function=votes))
    resume = dd.ResumeMode.IF_POSSIBLE
    results = designer.create(builder, num_records=asked.count, dataset_name="d", resume=resume)
    common.tell(started, len(results.load_dataset()))


if __name__ == "__main__":
    main()
