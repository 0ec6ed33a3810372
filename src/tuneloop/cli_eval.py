"""`tuneloop eval` and `tuneloop compare`: models on the rows of a file, or attacked by garak. Registered in `cli`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, Runs, console, print_json
from tuneloop.cli_garak import attack
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.evaluation.cost import Price
    from tuneloop.grading.metrics import Options
    from tuneloop.training.watch import Watcher

MODEL = ("a base by short name, hub id or folder; a run or 'latest'; the folder of an adapter; or a server: "
         "http://host/v1#MODEL")
EVAL = "How good any model is on the rows of a file, with 95 % intervals, latency and cost."
COMPARE = ("Models side by side on the same rows: paired differences with 95 % intervals, wins and losses by row, "
           "latency and cost.")
Models = Annotated[list[str], typer.Argument(metavar="MODEL", help=MODEL, show_default=False)]
On = Annotated[str, typer.Option("--on", help="the rows: a file, a folder, or another source", show_default=False)]
Metrics = Annotated[str | None, typer.Option(help="such as accuracy,macro_f1 or rouge_l,perplexity; those of the rows "
                                             "unless given", show_default=False)]
Count = Annotated[int | None, typer.Option("--rows", min=1, help="draw so many rows", show_default=False)]
Labels = Annotated[str | None, typer.Option(help="the labels to choose from, such as good,bad; those of the rows "
                                            "unless given", show_default=False)]
Template = Annotated[str | None, typer.Option(help="a template over plain columns, as in a recipe; a run's own unless "
                                              "given", show_default=False)]
AnswerTemplate = Annotated[str | None, typer.Option(help="the same for the right answer", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="a folder that gets result.json and rows.jsonl", show_default=False)]
Longest = Annotated[int, typer.Option(min=1, help="tokens of the longest generated answer")]
Seed = Annotated[int, typer.Option(help="draws the rows and the resamples")]
Base = Annotated[str | None, typer.Option(help="the base of adapters that name none", show_default=False)]
KeyEnv = Annotated[str, typer.Option(help="the environment variable that holds a server's key", show_default=False)]
Tokenizer = Annotated[str, typer.Option(help="a base with the chat template of the server's model: labels are then "
                                        "chosen by likelihood, where the server echoes", show_default=False)]
Schema = Annotated[Path | None, typer.Option(help="a JSON schema, for the metric json_schema", show_default=False)]
JudgeName = Annotated[str | None, typer.Option("--judge", metavar="MODEL", show_default=False,
                                               help="a model that judges open answers, called as MODEL is: eval gives "
                                                    "its mean grade, compare how often it prefers which")]
Rubric = Annotated[Path | None, typer.Option(help="a file that says what makes an answer good, such as a style guide; "
                                             "to be helpful unless given", show_default=False)]
JudgeKey = Annotated[str, typer.Option("--judge-key-env", show_default=False,
                                       help="the environment variable that holds the key of the judge's server")]
Garak = Annotated[str | None, typer.Option(metavar="PROBES", show_default=False,
                                           help="instead of rows, of a server: attack it with these probes of garak, "
                                                "such as dan.Ablation_Dan_11_0,encoding")]
GarakPython = Annotated[str, typer.Option(help="the Python of an environment that has garak", show_default=False)]
PerHour = Annotated[float | None, typer.Option(min=0, help="price of this machine, for costs", show_default=False)]
PerMillion = Annotated[str | None, typer.Option(metavar="PROMPT,ANSWER", help="prices of a server's tokens, for costs",
                                                show_default=False)]


def judge_models(
        context: typer.Context, models: Models, on: On = "", metrics: Metrics = None, rows: Count = None,
        labels: Labels = None, prompt: Template = None, answer: AnswerTemplate = None, out: Out = None,
        max_new_tokens: Longest = 256, seed: Seed = 0, base: Base = None, key_env: KeyEnv = "",
        tokenizer: Tokenizer = "", schema: Schema = None, usd_per_hour: PerHour = None,
        usd_per_million: PerMillion = None, judge_name: JudgeName = None, rubric: Rubric = None,
        judge_key_env: JudgeKey = "", garak: Garak = None, garak_python: GarakPython = "", runs: Runs = Path("runs"),
        as_json: AsJson = False) -> None:
    """Both commands: `eval` takes one model, `compare` two or more."""
    from tuneloop.any_model import open_any, run_called, short_name
    from tuneloop.data.examine import Reading
    from tuneloop.judge_files import (
        Judging,
        check_names,
        check_out,
        judge,
        metrics_for,
        read_rows,
        reading_for,
        trained_on,
        write,
    )
    from tuneloop.judging import add_judgement, check_open, judged_by

    if garak is not None or garak_python:
        attack(context)
        return
    _check_count(str(context.info_name), models, on)
    check_names(models)
    check_out(out)
    by = judged_by(judge_name, rubric, judge_key_env)
    machine, remote = _prices(usd_per_hour, usd_per_million)
    how = Judging(_listed(metrics), max_new_tokens, seed=seed, options=_options(schema), machine=machine, remote=remote)
    own = [run for model in models if "://" not in model and (run := run_called(model, runs))]
    reading = Reading(Path.cwd(), prompt=prompt, answer=answer) if prompt or answer else reading_for(own, on)
    read = read_rows(on, reading, metrics=how.metrics, labels=_listed(labels), count=rows, seed=seed)
    metrics_for(read, how.metrics)      # before a model is loaded
    if by:
        check_open(read)
    names = [short_name(model) for model in models]
    with _watching(as_json) as watch:
        judging = by.open(runs, watch.say) if by else None
        backends = [open_any(model, runs, base=base, key_env=key_env, template_of=tokenizer, say=watch.say,
                             name=name if names.count(name) == 1 else model)
                    for model, name in zip(models, names, strict=True)]
        result, lines = judge(backends, read, how, watch)
        if by and judging:
            result["judged"] = add_judgement(judging, by.policy, backends, read, how, lines, watch)
    result["notes"] = [*trained_on(models, runs, read), *result["notes"]]
    if out:
        write(out, result, lines)
    if as_json:
        print_json(result)
    else:
        _show(result, out)


def _check_count(command: str, models: Sequence[str], on: str) -> None:
    if not on:
        raise UserError("No rows are named to judge by.", wanted=f"tuneloop {command} {' '.join(models)} --on FILE")
    if command == "compare" and len(models) < 2:
        raise UserError("There is nothing to compare one model with.", wanted="two models or more",
                        fix=f"tuneloop eval {models[0]} --on {on}")
    if command == "eval" and len(models) > 1:
        raise UserError("eval takes one model.", fix=f"tuneloop compare {' '.join(models)} --on {on}")


def _watching(as_json: bool) -> Any:
    from tuneloop.terminal import Terminal
    from tuneloop.training.watch import Silent

    silent: Watcher = Silent()
    return nullcontext(silent) if as_json else Terminal(console)


def _listed(words: str | None) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()] if words else []


def _prices(usd_per_hour: float | None, usd_per_million: str | None) -> tuple[Price | None, Price | None]:
    """Of models that run here, and of those behind a URL."""
    from tuneloop.evaluation.cost import Price

    here = None if usd_per_hour is None else Price(machine_usd_per_hour=usd_per_hour)
    if usd_per_million is None:
        return here, None
    try:
        prompt, answer = (float(part) for part in usd_per_million.split(","))
        return here, Price(prompt_usd_per_million=prompt, answer_usd_per_million=answer)
    except ValueError:
        raise UserError(f"--usd-per-million {usd_per_million} are no prices.",
                        wanted="two, of tokens of the prompt and of the answer, such as 0.15,0.6") from None


def _options(schema: Path | None) -> Options:
    from tuneloop.grading.metrics import Options
    from tuneloop.record import read_json

    return Options(schema=read_json(schema)) if schema else Options()


# ── on the terminal ──────────────────────────────────────────────────────────────────────────────────────────────────

def _show(result: dict[str, Any], out: Path | None) -> None:
    from rich.table import Table

    from tuneloop.judging import told

    what = {"labels": "labels", "open": "open answers", "pairs": "pairs of answers"}[result["task"]]
    console.print(f"[bold]{escape(result['file'])}[/]: {result['rows']:,} rows, {what}", soft_wrap=True)
    columns = _cost_columns(result)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", *result["metrics"], *columns):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for model in result["models"]:
        table.add_row(escape(model["name"]), *map(_interval, model["scores"].values()),
                      *(_number(model["cost"][key], key) for key in columns.values()))
    console.print(table)
    for one in result["differences"]:
        console.print(escape(_difference(one)), soft_wrap=True)
    judged = result.get("judged")
    for line in told(judged) if judged else ():
        console.print(escape(line), soft_wrap=True)
    for note in [*result["notes"], *(judged["notes"] if judged else ())]:
        console.print(f"[dim]•[/] {escape(note)}", soft_wrap=True)
    if out:
        console.print(f"Row by row: [bold]{escape(str(out / 'rows.jsonl'))}[/]", soft_wrap=True)


def _cost_columns(result: dict[str, Any]) -> dict[str, str]:
    """Heading and key of what is known of costs."""
    keys = {"p50": "p50_seconds", "p95": "p95_seconds", "tokens": "new_tokens_per_answer",
            "$ per 1,000": "usd_per_1000", "$ per 1,000 right": "usd_per_1000_correct",
            "time per 1,000": "machine_seconds_per_1000", "time per 1,000 right": "machine_seconds_per_1000_correct"}
    return {heading: key for heading, key in keys.items()
            if any(model["cost"][key] is not None for model in result["models"])}


def _interval(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _number(value: float | None, key: str) -> str:
    if value is None:
        return ""
    if key.startswith("usd"):
        return f"{value:,.4f}"
    return f"{value:,.2f} s" if "seconds" in key else f"{value:,.1f}"


def _difference(one: dict[str, Any]) -> str:
    from tuneloop.evaluation.text import better

    sure = one["low"] > 0 or one["high"] < 0
    more, less = ("better", "worse") if better(one["metric"]) else ("more", "less")     # such as a length
    p = "p < 0.001" if one["p_holm"] < 0.001 else f"p = {one['p_holm']:.3f}"
    return (f"{one['metric']}: {one['to']} − {one['from']} = {one['value']:+.3f} ({one['low']:+.3f} to "
            f"{one['high']:+.3f}; {p}{'' if sure else ', not certain'}); {more} on {one['wins']:,} rows, {less} on "
            f"{one['losses']:,}, the same on {one['ties']:,}")
