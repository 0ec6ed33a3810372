"""The blind pairs of a run on the judging page: what people say becomes the judgements that its certificate reads."""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.errors import UserError
from tuneloop.evaluation.blind import (
    FOLDER,
    JUDGEMENTS,
    PAIRS,
    Judgement,
    Pair,
    Verdict,
    ask_for,
    read_judgements,
    read_pairs,
    write_judgements,
)
from tuneloop.people.items import Item, item_of
from tuneloop.people.questions import Question, digest
from tuneloop.people.store import Judgements, Said
from tuneloop.record import RunFolder
from tuneloop.types import Message, Origin

STORE = "judgements.sqlite"
FEW_PAIRS = 40          # that are drawn unless said otherwise


@dataclass(frozen=True)
class BlindRun:
    """A run's pairs as questions; the names of the models are nowhere in them."""

    folder: RunFolder
    pairs: dict[str, Pair]              # by the id of the question

    @classmethod
    def of(cls, folder: RunFolder, count: int | None = None) -> BlindRun:
        """The pairs of a run; drawn now where there are none. Raises a UserError for a run without answers, and for
        another number of pairs than there are.
        """
        file = folder.file(FOLDER, PAIRS)
        if file.exists():
            pairs = read_pairs(file)
            if count not in (None, len(pairs)):
                raise UserError(f"{file} holds {len(pairs)} pairs already.",
                                fix=f"judge those, or remove {folder.file(FOLDER)} to draw {count} others")
        elif not folder.has("evaluation", "predictions.jsonl"):
            raise UserError(f"{folder.path} has no answers to compare yet.",
                            fix=f"finish it: tuneloop run --resume {folder.path}")
        else:
            pairs = ask_for(folder, count or FEW_PAIRS)
        return cls(folder, {digest(pair.pair, pair.prompt, pair.left, pair.right): pair for pair in pairs})

    @property
    def questions(self) -> dict[str, Question]:
        origin = Origin(str(self.folder.file(FOLDER, PAIRS)), 1)
        return {name: Question(name, (Message("user", pair.prompt),),
                               {digest(pair.left): pair.left, digest(pair.right): pair.right}, origin, {})
                for name, pair in self.pairs.items()}

    @property
    def items(self) -> list[Item]:
        return [item_of(question.id, "compare", list(question.answers)) for question in self.questions.values()]

    def store(self) -> Judgements:
        return Judgements(self.folder.file(FOLDER, STORE))

    def write(self, store: Judgements) -> int:
        """Write what people said so far for the certificate, and return how much. What was written there by hand, about
        pairs that the same person did not judge here, stays.
        """
        store.look()
        file = self.folder.file(FOLDER, JUDGEMENTS)
        pairs = list(self.pairs.values())
        by_hand = read_judgements(file, pairs) if file.exists() else []
        every = [said for said in store.all() if self._is_pair(said)]
        here = {(said.annotator, self.pairs[said.question].pair) for said in every}
        mine = [self._judgement(said) for name in store.annotators("person") for said in store.standing(name)
                if self._is_pair(said)]
        found = [*(one for one in by_hand if (one.annotator, one.pair) not in here), *mine]
        if found:
            write_judgements(found, file)
        else:
            file.unlink(missing_ok=True)
        return len(found)

    def _is_pair(self, said: Said) -> bool:
        return said.question in self.pairs and said.kind != "edit" and not said.check

    def _judgement(self, said: Said) -> Judgement:
        pair = self.pairs[said.question]
        left, right = digest(pair.left), digest(pair.right)
        sides: dict[str, Verdict] = {"first": "left", "second": "right", "tie": "tie", "bad": "both_bad"}
        return Judgement(pair.pair, sides[said.verdict.relation(left, right)], said.annotator, said.seconds)
