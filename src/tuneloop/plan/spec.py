"""The parts `training:` and `deploy:` of a recipe. What is left out of training is planned, and the plan says why."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tuneloop.spec import Spec

Positive = Annotated[int, Field(ge=1)]


class TrainingSpec(Spec):
    """Hyperparameters of the loop."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows."""
    max_steps: Positive | None = None
    """Stop after so many optimizer steps; where epochs are given too, after whichever comes first."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate, reached after the warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    batch_size: Positive | None = None
    """Rows per optimizer step. How they are cut into micro-batches never changes the result."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    """AdamW; its moments in 8 bits, or paged to the host's memory (CUDA only), by bitsandbytes."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay; not applied to biases and norms."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    token_budget: Positive | None = None
    """Most tokens computed at once; planned from memory. It never changes the result."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Most memory that training may use, in GiB; what the machine has unless given."""
    checkpointing: bool | None = None
    """Compute activations again in the backward instead of keeping them: slower, and far less memory. Planned."""
    evaluate_every: Positive | None = None
    """Optimizer steps between two looks at the validation loss."""
    patience: Positive = 3
    """Stop after so many looks at the validation loss without a new best."""
    checkpoint_every: Positive | None = None
    """Optimizer steps between two checkpoints; as often as the validation loss unless given."""
    sample_prompts: Annotated[int, Field(ge=0)] = 2
    """Validation prompts answered at every look at the validation loss, to read along."""
    only_if_needed: bool = False
    """Stop after the baseline where the base with examples or a better prompt already meets the goal. Without it the
    run says so and goes on."""
    seed: int | None = None
    """Begins the method's parameters, and draws the order of the rows and dropout; the recipe's seed unless given. The
    rows' split keeps to the recipe's."""


class DeploySpec(Spec):
    """What the result will run on: the plan checks base and method against it, and `method: auto` keeps to it."""

    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory that serving may take, in 10^9 bytes."""
    p95_ms: Annotated[float, Field(gt=0)] | None = None
    """Longest that 95 of 100 answers may take, alone on the machine."""
    format: Literal["adapter", "merged", "gguf"] | None = None
    """What will be exported: an adapter beside the base, a whole model, or a GGUF file in 8 bits."""
    on: Annotated[str, Field(min_length=1)] | None = None
    """Where it is served, by a name as for `tuneloop plan --on`; this machine unless given."""
