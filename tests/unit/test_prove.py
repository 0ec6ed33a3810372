"""What tells a right objective from a wrong one: every clause of the contract, each broken on purpose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tuneloop.compute.cut import cut_step
from tuneloop.objectives import base, dpo, kto, sft
from tuneloop.prove import EXACT, Bench, Check, Step, prove
from tuneloop.recipe import OBJECTIVES
from tuneloop.specimen import BRANCHES, TRUNK_BUDGET, groups_of, tiny_model
from tuneloop.types import Batch, Conversation, LossOutput, Outputs, Preference, Rated, Rollout


def broken(objective: base.Objective, **options: Any) -> dict[str, Check]:
    """The clauses that failed, and that none before them was left out."""
    checks = prove(objective, **options)
    states = [check.ok for check in checks]
    assert None not in states[:states.index(False)] if False in states else all(states)
    return {check.name: check for check in checks if check.ok is False}


def said(objective: base.Objective, name: str) -> str:
    """Why the clause `name` is broken, and no other."""
    found = broken(objective)
    assert list(found) == [name], found
    return found[name].why


def weighted(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    return (values * batch.weights).sum()


# --- what is right ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", OBJECTIVES.names)
def test_the_built_in_ones_keep_the_contract(name: str) -> None:
    objective = OBJECTIVES.get(name)(**({"teacher": "any"} if name == "distill" else {}))
    assert broken(objective) == {}


def test_every_clause_is_measured_and_can_be_printed() -> None:
    checks = prove(sft.Objective())
    assert [c.name for c in checks] == ["declares", "needs", "finite", "repeats", "slope", "sharing", "cut", "order",
                                        "weights", "metrics"]
    assert all(c.ok for c in checks)
    assert all(0 <= c.error <= c.limit for c in checks if c.error is not None and c.limit is not None)
    assert json.loads(json.dumps([c.to_json() for c in checks]))[4]["limit"] == 1e-6
    assert "weights" not in {c.name for c in prove(dpo.Objective())}      # they only say which tokens count there


def test_the_step_is_the_one_of_the_definition() -> None:
    """Mean negative log-likelihood by the model's own forward, row by row."""
    bench = Bench(sft.Objective())
    total, weight = 0.0, 0.0
    for group in bench.groups:
        [row] = group.branches
        logits = bench.model.inner(input_ids=torch.from_numpy(row.ids)[None]).logits[0]
        own = logits.log_softmax(-1)[torch.arange(len(row) - 1), torch.from_numpy(row.ids)[1:]]
        total -= float((own.detach() * torch.from_numpy(row.weights)[1:]).sum())
        weight += float(row.weights.sum())
    assert bench.step().loss == pytest.approx(total / weight, rel=1e-12)


@pytest.mark.parametrize("kind", BRANCHES)
def test_the_rows_can_be_cut_in_every_way(kind: type[Any]) -> None:
    groups = groups_of(kind, tiny_model())
    samples = [r for g in groups for r in g.branches]
    numbers = [i for i, g in enumerate(groups) for _ in g.branches]
    trunks = cut_step(samples, TRUNK_BUDGET, groups=numbers)
    assert any(not piece.samples for piece in trunks), "no trunk: the rows miss their point"
    assert len(cut_step(samples, 1, groups=numbers, share=False)) == len(groups)
    [shared], [lone] = cut_step(samples, 10**6, groups=numbers), cut_step(samples, 10**6, groups=numbers, share=False)
    assert shared.forest.unique_tokens < 0.7 * lone.forest.unique_tokens
    assert {r.named["desirable"] for r in samples} == {0.0, 1.0}


def test_the_tries_leave_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    prove(sft.Objective())
    assert torch.equal(before, torch.random.get_rng_state())


# --- sums ------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class MeanOfTokens(base.Objective):
    denominator = "branch"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-out.logprobs.mean())


@dataclass(frozen=True)
class MeanOfPairs(base.Objective):
    batch_kind = Preference
    denominator = "group"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        chosen, rejected = batch.pairs(out.per_branch())
        return LossOutput(-torch.nn.functional.logsigmoid(chosen - rejected).mean())


@dataclass(frozen=True)
class MeanByWeight(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-weighted(out.logprobs, batch) / batch.weights.sum())


@pytest.mark.parametrize(("objective", "over"), [
    (MeanOfTokens(), "supervised tokens"), (MeanOfPairs(), "groups"), (MeanByWeight(), "token weights")])
def test_a_mean_in_place_of_a_sum_is_named(objective: base.Objective, over: str) -> None:
    assert f"a mean over the batch's {over}: return the sum" in said(objective, "cut")


@dataclass(frozen=True)
class Mixing(base.Objective):
    """Advantages against the mean reward of all completions, those of other prompts included."""

    batch_kind = Rollout
    denominator = "branch"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        reward = batch.named["rewards"]
        return LossOutput(-((reward - reward.mean()) * out.per_branch()).sum())


def test_a_loss_that_mixes_groups_is_told_from_a_mean() -> None:
    why = said(Mixing(), "cut")
    assert "depends on which other groups are in the same piece" in why
    assert "batch.group_of" in why


@dataclass(frozen=True)
class Whitening(base.Objective):
    denominator = "branch"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        total = out.per_branch()
        return LossOutput(((total - total.mean()) / total.std()).pow(3).sum())


@pytest.mark.filterwarnings("ignore:std")
def test_a_statistic_over_one_group_is_not_finite() -> None:
    assert "The loss of a group alone is not finite" in said(Whitening(), "cut")


@dataclass(frozen=True)
class MeanOfProbes(kto.Objective):
    def step_stats(self, out: Outputs, batch: Batch) -> LossOutput:
        total = (out.per_branch() - batch.reference.per_branch()).mean()
        return LossOutput(total, {"kl": total + 10})


def test_step_stats_must_return_sums_too() -> None:
    assert "`step_stats` returns means" in said(MeanOfProbes(), "cut")


# --- the gradient ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Detached(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-weighted(out.logprobs.detach(), batch))


@dataclass(frozen=True)
class HalfDetached(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-weighted((1 - out.logprobs.exp()).detach() * out.logprobs, batch))


@dataclass(frozen=True)
class Constant(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(weighted(0 * out.logprobs + 1, batch))


@dataclass(frozen=True)
class Infinite(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(weighted((out.logprobs - out.logprobs).log(), batch))


@dataclass(frozen=True)
class InfiniteGradient(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(weighted((0 * out.logprobs).sqrt() - out.logprobs, batch))


@pytest.mark.parametrize(("objective", "told"), [
    (Detached(), "carries no gradient"), (Constant(), "zero everywhere"), (Infinite(), "The loss is -inf"),
    (InfiniteGradient(), "The gradient is not finite although the loss is")])
def test_a_gradient_that_is_none(objective: base.Objective, told: str) -> None:
    assert told in said(objective, "finite")


def test_a_gradient_that_is_not_the_slope_of_the_loss() -> None:
    assert "Part of the loss is detached" in said(HalfDetached(), "slope")
    assert broken(HalfDetached(), detaches=True) == {}


@dataclass(frozen=True)
class Random(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        kept = (torch.rand(len(out.logprobs), dtype=torch.float64) > 0.3).to(torch.float64)
        return LossOutput(-weighted(kept * out.logprobs, batch))


def test_random_numbers_in_a_loss_are_found() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert "draws random numbers" in said(Random(), "repeats")


# --- needs -----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Needy(base.Objective):
    """Reads a field of `out` and a column, and declares what it is told to."""

    reads: str
    column: str
    declares: tuple[str, ...] = ()
    teacher: str = "any"
    top_k: int = 5

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.declares)

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        read = getattr(out, self.reads)
        column = batch.named[self.column]
        per_token = [values.sum(-1) if values.ndim == 2 else values for values in (read, column)]      # (M,) each
        return LossOutput(weighted(sum(per_token) - out.logprobs, batch))


@pytest.mark.parametrize(("reads", "column", "missing"), [
    ("entropy", "reference_logprobs", ["entropy", "reference_logprobs"]),
    ("mean_logprobs", "old_logprobs", ["mean_logprobs", "old_logprobs"]),
    ("values", "old_values", ["old_values", "values"]),
    ("selected", "teacher_logprobs", ["selected", "teacher"]),
])
def test_what_is_not_declared_is_named(reads: str, column: str, missing: list[str]) -> None:
    quoted = [f'"{need}"' for need in missing]
    assert f"add {', '.join(quoted)} to `needs`" in said(Needy(reads, column), "needs")
    one = said(Needy(reads, column, (missing[1],)), "needs") if missing != ["selected", "teacher"] else quoted[0]
    assert quoted[0] in one
    checks = {c.name: c for c in prove(Needy(reads, column, tuple(missing)))}
    assert checks["needs"].ok
    assert checks["slope"].ok


def test_a_need_that_is_never_read_is_told_and_no_failure() -> None:
    [check] = [c for c in prove(Needy("entropy", "old_logprobs", ("entropy", "old_logprobs", "reference_logprobs")))
               if c.name == "needs"]
    assert (check.ok, check.why) == (True, "It never reads reference_logprobs: computed for nothing.")


@dataclass(frozen=True)
class Wrong(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(out.logprobs[len(out.logprobs) + 1])


def test_a_mistake_is_told_with_its_line() -> None:
    line = Wrong.loss.__code__.co_firstlineno + 1
    why = said(Wrong(), "needs")
    assert f"loss fails: test_prove.py line {line} raises IndexError" in why
    assert "add" not in why


@pytest.mark.parametrize(("declares", "told"), [
    ({"needs": frozenset({"entropi"})}, "did you mean 'entropy'?"), ({"needs": "entropy"}, "a set of names"),
    ({"needs": lambda self: frozenset()}, "a property that gives a set of names"),
    ({"needs": ["entropy"]}, "a property that gives a set of names"),
    ({"needs": frozenset({"selected"})}, "add 'teacher'"), ({"needs": frozenset({"old_values"})}, "add 'values'"),
    ({"needs": frozenset({"selected", "teacher"})}, "the options `teacher: str` and `top_k: int`"),
    ({"denominator": "rows"}, "one of: weight, branch, group"),
    ({"batch_kind": dict}, "one of: Conversation, Preference, Rated, Rollout"),
    ({"needs": property(lambda self: 1 / 0)}, "cannot say what it needs: test_prove.py line"),
])
def test_a_wrong_declaration_is_told_before_anything_is_tried(declares: dict[str, Any], told: str) -> None:
    made = dataclass(frozen=True)(type("Made", (sft.Objective,), {"__module__": __name__, **declares}))
    checks = prove(made())
    assert told in checks[0].why
    assert [c.ok for c in checks[1:]] == [None] * (len(checks) - 1)


# --- layout, order, weights ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ReadsLayout(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-weighted(out.logprobs * (1 + batch.predict_at / 1000), batch))


@dataclass(frozen=True)
class ReadsNumbers(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-weighted(out.logprobs * (1 + batch.group_of)[batch.branch_of], batch))


@dataclass(frozen=True)
class Unweighted(base.Objective):
    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-out.logprobs.sum())


@pytest.mark.parametrize(("objective", "name", "told"), [
    (ReadsLayout(), "sharing", "how the tokens are laid out"),
    (ReadsNumbers(), "order", "a group's place in the batch"),
    (Unweighted(), "weights", "multiply each token's loss by `batch.weights`")])
def test_what_a_loss_must_not_look_at(objective: base.Objective, name: str, told: str) -> None:
    assert told in said(objective, name)


# --- what comes back -------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Returns(base.Objective):
    what: str

    def loss(self, out: Outputs, batch: Batch) -> Any:
        total = -weighted(out.logprobs, batch)
        good = weighted(out.logprobs.exp(), batch)
        return {"a tensor": total, "nothing": None, "a shape": LossOutput(-out.logprobs),
                "a number": LossOutput(total.item()), "float32": LossOutput(total.float()),
                "a metric as a number": LossOutput(total, {"p": good.item()}),
                "a metric called loss": LossOutput(total, {"loss": good}),
                "a metric per row": LossOutput(total, {"p": good}, {"p": "row"}),
                "a metric per nothing": LossOutput(total, {"p": good}, {"q": "group"}),
                "a mean": LossOutput(total, {"good": good, "p": out.logprobs.exp().mean(), "q": good}),
                "a right one": LossOutput(total, {"p": good, "n": total.new_tensor(batch.branches)}, {"n": "branch"}),
                }[self.what]


@pytest.mark.parametrize(("what", "name", "told"), [
    ("a tensor", "needs", "loss returns Tensor: return LossOutput("), ("nothing", "needs", "returns NoneType"),
    ("a shape", "needs", "return its sum"), ("a number", "needs", "keep it a tensor"),
    ("float32", "needs", "leave out .float()"), ("a metric as a number", "needs", "returns p as float"),
    ("a metric called loss", "needs", "rename it"), ("a metric per row", "needs", "divides 'p' by 'row'"),
    ("a metric per nothing", "needs", "divides 'q' by 'group'"), ("a mean", "metrics", "p: return sums"),
])
def test_what_a_loss_must_return(what: str, name: str, told: str) -> None:
    assert told in said(Returns(what), name)


def test_a_metric_may_have_a_denominator_of_its_own() -> None:
    assert broken(Returns("a right one")) == {}
    step: Step = Bench(Returns("a right one")).step(budget=1)
    assert step.sums["n"] == 1.0


def test_errors_are_those_of_two_ways_to_one_number() -> None:
    """A loss off by a part in a million passes no clause that holds to a part in a thousand million."""
    @dataclass(frozen=True)
    class Slight(base.Objective):
        def loss(self, out: Outputs, batch: Batch) -> LossOutput:
            return LossOutput(-weighted(out.logprobs, batch) * (1 + 1e-6 * batch.branches))

    assert "cut" in broken(Slight())
    assert broken(Slight())["cut"].error == pytest.approx(4e-6, rel=0.01)
    assert EXACT < 1e-6


def test_every_kind_of_sample_has_rows() -> None:
    assert {Conversation, Preference, Rated, Rollout} == set(BRANCHES)
