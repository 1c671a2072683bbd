"""The settings of `dsrl plan`: the GPU, its utilization, and the output file."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from dsrl.core.component import Component, Many, component
from dsrl.core.errors import UserError
from dsrl.forecast.estimate import Range

PEAKS = {
    "A10G": 70e12,
    "A100": 312e12,
    "B200": 2250e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX4090": 165e12,
    "V100": 125e12,
}
"""Dense operations per second in 16 bits (bfloat16; float16 for the V100), from NVIDIA's data sheets."""


@component("plan")
class Plan(Component):
    """The node `plan` of the config. It changes no result."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(("out", "gpu", "utilization"))

    out: str | None = None
    """JSON file for the forecast."""
    gpu: str = "H100"
    utilization: Many[float] = Field(default=(0.05, 0.15, 0.35), min_length=3, max_length=3)
    """Share of its peak that a GPU reaches in rollouts and RL: low, expected and high estimate."""

    @field_validator("gpu")
    @classmethod
    def _check_gpu(cls, value: str) -> str:
        if value not in PEAKS:
            raise UserError("plan.gpu: unknown GPU", got=value, allowed=PEAKS, next_step="give plan.gpu=H100")
        return value

    @field_validator("utilization")
    @classmethod
    def _check_utilization(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 0 < value[0] <= value[1] <= value[2] <= 1:
            raise UserError(
                "plan.utilization must be three shares in ascending order",
                got=list(value),
                allowed="0 < low <= expected <= high <= 1",
                next_step="plan.utilization=[0.05,0.15,0.35]",
            )
        return value

    def check_out(self) -> None:
        """Raise `UserError` if `out` can't be written, before any request is sent."""
        if self.out is not None and not Path(self.out).expanduser().absolute().parent.is_dir():
            raise UserError(
                "plan.out: the folder does not exist", got=self.out, next_step="give plan.out=forecast.json"
            )

    def gpu_hours(self, flops: Range) -> Range:
        low, expected, high = (PEAKS[self.gpu] * 3600 * share for share in self.utilization)
        return Range(flops.low / high, flops.expected / expected, flops.high / low)
