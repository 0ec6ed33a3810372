"""What the result takes where it will run: memory and time per answer, against the recipe's `deploy:`.

Weights are read once for every token of an answer, so an answer lasts as long as its tokens times the weights over the
memory's bandwidth, and no less than its prompt's FLOPs take. Arithmetic for one answer at a time; nothing is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneloop.plan import estimate
from tuneloop.plan.cost import TIME_FACTOR, UTILISATION

if TYPE_CHECKING:
    from tuneloop.models.shape import Shape
    from tuneloop.plan.hardware import Hardware
    from tuneloop.plan.job import Job
    from tuneloop.plan.spec import DeploySpec

GGUF_BYTES = 34 / 32        # q8_0: 32 weights of a byte and a scale of two
RUNTIME_BYTES = 500_000_000
SHORTEST_ANSWER = 3         # tokens; a label


@dataclass(frozen=True)
class Serving:
    """One answer at a time on a machine."""

    memory_bytes: int
    answer_ms: float

    def misses(self, deploy: DeploySpec) -> list[str]:
        """What of `deploy` it does not keep to, for people."""
        told = []
        if deploy.memory_gb is not None and self.memory_bytes > deploy.memory_gb * 1e9:
            told.append(f"{self.memory_bytes / 1e9:.1f} GB to serve, and deploy.memory_gb is {deploy.memory_gb:g}")
        if deploy.p95_ms is not None and self.answer_ms > deploy.p95_ms:
            told.append(f"about {self.answer_ms:,.0f} ms for the longest prompt (within a factor of {TIME_FACTOR:g}), "
                        f"and deploy.p95_ms is {deploy.p95_ms:g}")
        return told


def serving(shape: Shape, deploy: DeploySpec, job: Job, machine: Hardware) -> Serving:
    """Memory and time of the longest prompt with a usual answer. `machine` needs its bandwidth measured."""
    width = GGUF_BYTES if deploy.format == "gguf" else machine.dtype_bytes
    weights = int(width * shape.parameters)
    answer = max(SHORTEST_ANSWER, job.answer_tokens)
    cached = 2 * shape.layers * shape.kv_heads * shape.head_dim * machine.dtype_bytes * (job.longest + answer)
    share = estimate.EFFICIENCY if machine.kind == "cpu" else UTILISATION
    reading = estimate.forward_flops(shape, job.longest, 1) / (machine.flops_per_second * share)
    writing = answer * weights / (machine.bandwidth_bytes_per_second or float("inf"))
    return Serving(weights + int(cached) + RUNTIME_BYTES, 1000 * (reading + writing))
