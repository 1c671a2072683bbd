"""An OpenAI-compatible server on the loopback interface that fails on request, for tests and benchmarks."""

from tests.support.faultserver.faults import Faults, Outage
from tests.support.faultserver.serve import FaultServer, serve

__all__ = ["FaultServer", "Faults", "Outage", "serve"]
