"""What `dsrl plan` reckons with: the GPU, how well it is used, and where the forecast is written."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from dsrl.core.component import Component, Many, component
from dsrl.core.errors import UserError
from dsrl.core.estimate import Range

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
"""Dense operations a second in 16 bits (bfloat16; float16 for the V100), from NVIDIA's data sheets."""


@component("plan")
class Plan(Component):
    """The key `plan:` of the config; it changes no result."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(("out", "gpu", "utilization"))

    out: str | None = None
    """JSON file to write the forecast into."""
    gpu: str = "H100"
    utilization: Many[float] = Field(default=(0.05, 0.15, 0.35), min_length=3, max_length=3)
    """Share of its peak that a GPU reaches in rollouts and RL: low, expected, high."""

    @field_validator("gpu")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PEAKS:
            raise UserError(
                "plan.gpu: no peak is known for it", got=value, allowed=PEAKS, next_step="give plan.gpu=H100"
            )
        return value

    @field_validator("utilization")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 0 < value[0] <= value[1] <= value[2] <= 1:
            raise UserError(
                "plan.utilization: three rising shares are wanted",
                got=list(value),
                next_step="plan.utilization=[0.05,0.15,0.35]",
            )
        return value

    def check_out(self) -> None:
        """Raises `UserError` where the file can't be written, before anything is asked or paid."""
        if self.out is not None and not Path(self.out).expanduser().absolute().parent.is_dir():
            raise UserError("plan.out: there is no such folder", got=self.out, next_step="give plan.out=forecast.json")

    def gpu_hours(self, flops: Range) -> Range:
        """Good use makes few hours."""
        worst, usual, best = (PEAKS[self.gpu] * 3600 * share for share in self.utilization)
        return Range(flops.low / best, flops.expected / usual, flops.high / worst)
