"""An OpenAI-compatible server on the loopback interface that misbehaves as it is told, for tests and benchmarks."""

from tests.support.faultserver.faults import Faults, Outage
from tests.support.faultserver.serve import FaultServer, serve

__all__ = ["FaultServer", "Faults", "Outage", "serve"]
