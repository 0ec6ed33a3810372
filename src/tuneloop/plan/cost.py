"""A method on a machine by name: does it fit, and what time, money, power and disk does it take. Arithmetic alone.

The plan for this machine is made in `make`; this is for machines that are not here. Nothing below was measured there:
memory follows from sizes and dtypes, time from the makers' matrix rates and an assumed share of them.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tuneloop.plan import estimate
from tuneloop.plan.hardware import TPU, Hardware

if TYPE_CHECKING:
    from tuneloop.methods.base import MethodSpec
    from tuneloop.models.shape import Shape
    from tuneloop.plan.job import Job
    from tuneloop.plan.spec import TrainingSpec

ERROR = 0.15            # of a peak: the bar that is shown, and what a plan keeps free
TIME_FACTOR = 2.0       # a time may be so many times longer, or shorter
GPU_RUNTIME_BYTES = 2**30       # context, workspaces of the libraries, what the allocator cannot give back
UTILISATION = 0.35      # share of a GPU's matrix rate that a whole step reaches; 0.3 to 0.45 is usual
QUANTISED = 0.7         # of that where weights are unpacked in every pass
SHARDED = 0.85          # of that where devices wait for each other's weights
AT_ONCE = 16            # answers generated together
BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")

Fits = Literal["yes", "tight", "no", "refused"]


@dataclass(frozen=True)
class Numbers:
    """Bytes of what is kept for a parameter of the base that trains: itself, its gradient, each of AdamW's moments."""

    weight: int
    gradient: int
    moment: int

    @classmethod
    def on(cls, machine: Hardware) -> Numbers:
        """As tuneloop trains: gradients and moments in the weights' own dtype."""
        return cls(machine.dtype_bytes, machine.dtype_bytes, machine.dtype_bytes)


MIXED = Numbers(2, 2, 4)
"""What papers call 16-bit training: AdamW's moments stay in float32 (QLoRA, section 2)."""


@dataclass(frozen=True)
class Parts:
    """Bytes of one device at the peak of a training step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    runtime: int

    @property
    def total_bytes(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Cell:
    """A method on a machine. Bytes are those of one device, everything else is of the whole run."""

    method: str
    hardware: str
    fits: Fits
    why: str = ""
    devices: int = 1
    devices_used: int = 1
    parts: dict[str, int] = field(default_factory=dict)
    total_bytes: int = 0
    limit_bytes: int = 0
    error: float = ERROR
    checkpointing: bool = False
    token_budget: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    usd_per_hour: float | None = None
    price_as_of: str = ""
    watts: float | None = None
    disk_bytes: int = 0
    trainable: int = 0
    assumed: str = ""           # what the figures rest on, for people

    @property
    def usable(self) -> bool:
        return self.fits in ("yes", "tight")

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def usd(self) -> float | None:
        """The whole machine for the whole run; None without a price."""
        return None if self.usd_per_hour is None else self.total_seconds / 3600 * self.usd_per_hour

    @property
    def kwh(self) -> float | None:
        """At full load, without cooling; None where nobody knows the watts."""
        return None if self.watts is None else self.total_seconds / 3600 * self.watts / 1000

    def to_json(self) -> dict[str, Any]:
        memory = {"total_bytes": self.total_bytes, "low_bytes": int(self.total_bytes * (1 - self.error)),
                  "high_bytes": int(self.total_bytes * (1 + self.error)), "limit_bytes": self.limit_bytes,
                  "error": self.error, "parts": self.parts}
        seconds = {name: round(s, 1) for name, s in self.seconds.items()}
        kept = asdict(self)
        for gone in ("parts", "total_bytes", "limit_bytes", "error", "seconds", "watts"):
            del kept[gone]
        return kept | {"memory": memory, "seconds": seconds | {"total": round(self.total_seconds, 1)},
                       "usd": None if self.usd is None else round(self.usd, 2),
                       "kwh": None if self.kwh is None else round(self.kwh, 3)}


def verdict(total: int, limit: int, error: float = ERROR) -> Fits:
    """Whether a peak fits: `tight` where it does by the figure and not by its error bar."""
    return "yes" if total * (1 + error) <= limit else "tight" if total <= limit else "no"


def loaded_bytes(method: MethodSpec, shape: Shape, dtype_bytes: int) -> int:
    """Bytes of the loaded base in a dtype; what a method adds to it stays float32."""
    bits = getattr(method, "bits", None)
    linear = 0 if bits is None else sum(i * o * n for _, i, o, n in shape.adaptable_shapes())
    saved = (4 - dtype_bytes) * (shape.parameters - linear)
    return method.memory(shape).base_bytes - saved


def memory(shape: Shape, method: MethodSpec, machine: Hardware, tokens: int, *, checkpointing: bool,
           optimizer: str = "adamw", devices: int = 1, numbers: Numbers | None = None) -> Parts:
    """Peak of one device over a step of `tokens` unique tokens.

    What trains beside the base is float32 with float32 moments (as PEFT holds adapters). 8-bit moments take a byte
    each; paged ones may leave for the host's memory and are not counted. Over several devices weights, gradients and
    moments are divided (ZeRO-3, FSDP), one block at a time is put together again, and activations are each one's own.
    """
    cost, numbers = method.memory(shape), numbers or Numbers.on(machine)
    of_base = method.artefact == "model"
    kept = numbers if of_base else Numbers(4, 4, 4)
    trained = cost.trainable_parameters
    base = loaded_bytes(method, shape, numbers.weight)
    moments = 0 if optimizer.startswith("paged") else 2 * (1 if optimizer.endswith("8bit") else kept.moment)
    weights = base + (0 if of_base else kept.weight * trained)
    per_token = estimate.activation_bytes_per_token(shape, checkpointing) * numbers.weight // 4
    gathered = 0 if devices == 1 else largest_block(shape) * numbers.weight
    runtime = GPU_RUNTIME_BYTES if machine.kind == "cuda" else estimate.RUNTIME_BYTES
    return Parts(weights // devices + gathered, kept.gradient * trained // devices, moments * trained // devices,
                 tokens * per_token, 3 * 4 * estimate.HEAD_CHUNK * shape.vocab, runtime)


def largest_block(shape: Shape) -> int:
    """Parameters of the largest block, or of the embedding if that is larger."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for name, size in shape.weights.items():
        found = BLOCK.search(name)
        sizes[f"block {found[1]}" if found else name] += math.prod(size)
    return max(sizes.values(), default=0)


def seconds(shape: Shape, method: MethodSpec, machine: Hardware, job: Job, *, checkpointing: bool,
            devices: int = 1) -> dict[str, float]:
    """Expected seconds by stage: baseline, training with its looks at the validation rows, evaluation.

    Answers are generated 16 at a time, and every token of them reads all weights.
    """
    rate = rate_of(machine, method) * (1 if devices == 1 else devices * SHARDED)
    step = estimate.training_flops(shape, method.memory(shape), job.step_tokens, job.step_heads)
    if checkpointing:
        step += estimate.forward_flops(shape, job.step_tokens, 0)
    looks = estimate.forward_flops(shape, job.looked_at, job.looked_at * job.step_heads / max(1.0, job.step_tokens))
    asked = estimate.forward_flops(shape, job.test_tokens, job.test_rows) / rate
    if job.answer_tokens:
        width = machine.bandwidth_bytes_per_second
        reads = job.answer_tokens * job.test_rows / AT_ONCE
        of_memory = loaded_bytes(method, shape, machine.dtype_bytes) / width if width else 0.0
        asked += reads * max(of_memory, estimate.forward_flops(shape, AT_ONCE, AT_ONCE) / rate)
    return {"baseline": asked, "training": (job.steps * step + looks) / rate, "evaluation": asked}


def rate_of(machine: Hardware, method: MethodSpec) -> float:
    """FLOPs per second that a whole step reaches on one device."""
    share = estimate.EFFICIENCY if machine.kind == "cpu" else UTILISATION
    return machine.flops_per_second * share * (1 if getattr(method, "bits", None) is None else QUANTISED)


def disk_bytes(shape: Shape, method: MethodSpec, dtype_bytes: int) -> int:
    """The base's files, the artefact, and checkpoints: a new one is whole before the old one goes."""
    trained = method.memory(shape).trainable_parameters
    width = dtype_bytes if method.artefact == "model" else 4
    artefact = dtype_bytes * shape.parameters if method.artefact == "model" else width * trained
    return shape.stored_bytes + artefact + 2 * 3 * width * trained + 2 * width * trained


def cell(shape: Shape, method: MethodSpec, machine: Hardware, job: Job, training: TrainingSpec) -> Cell:
    """Everything about a method on a machine: one device of it if that is enough, else all of them, sharded."""
    if machine.kind == "tpu":
        return Cell(method.kind, machine.name, "refused", TPU, devices=machine.devices)
    limit = machine.available_bytes if training.memory_gb is None else \
        min(machine.available_bytes, int(training.memory_gb * 2**30))
    made = _on(shape, method, machine, job, training, limit, 1)
    if not made.usable and machine.devices > 1:
        made = _on(shape, method, machine, job, training, limit, machine.devices)
    return made


def _on(shape: Shape, method: MethodSpec, machine: Hardware, job: Job, training: TrainingSpec, limit: int,
        devices: int) -> Cell:
    def peak(tokens: int, again: bool) -> Parts:
        return memory(shape, method, machine, tokens, checkpointing=again, optimizer=training.optimizer,
                      devices=devices)

    def fitting(again: bool) -> int:
        per_token = peak(1, again).activations
        return max(0, int(limit / (1 + ERROR)) - peak(0, again).total_bytes) // max(1, per_token) - method.slots

    again = training.checkpointing if training.checkpointing is not None else fitting(False) < job.longest
    budget = training.token_budget or estimate.token_budget(fitting(again), job.longest)
    parts = peak(int(min(budget, max(job.step_tokens, job.longest))) + method.slots, again)
    offer = machine.offer
    return Cell(
        method.kind, machine.name, verdict(parts.total_bytes, limit), devices=machine.devices, devices_used=devices,
        parts=asdict(parts), total_bytes=parts.total_bytes, limit_bytes=limit, checkpointing=again, token_budget=budget,
        seconds=seconds(shape, method, machine, job, checkpointing=again, devices=devices),
        usd_per_hour=machine.usd_per_hour, price_as_of=offer.as_of if offer else "", watts=machine.total_watts,
        disk_bytes=disk_bytes(shape, method, machine.dtype_bytes),
        trainable=method.memory(shape).trainable_parameters, assumed=_assumed(machine, method, devices))


def _assumed(machine: Hardware, method: MethodSpec, devices: int) -> str:
    told = [f"{machine.dtype}; a step is taken to reach {rate_of(machine, method) / machine.flops_per_second:.0%} of "
            f"{machine.flops_per_second / 1e12:.3g} TFLOP/s"]
    if devices > 1:
        told.append(f"sharded over {devices} devices by simple division: nothing like it has been run here, and "
                    "`tuneloop run` uses one device")
    elif machine.devices > 1:
        told.append(f"one of {machine.devices} devices works, and all are paid for")
    return "; ".join(told)
