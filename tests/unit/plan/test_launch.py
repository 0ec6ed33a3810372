"""Launch files: what they hold, what is refused, and whether the launchers' own schemas take them.

The launchers are no dependencies: where SkyPilot or botocore is not installed, its own check is skipped.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from plan_cases import job, question

from tuneloop.errors import UserError
from tuneloop.models.outline import shape_named
from tuneloop.plan.hardware import named
from tuneloop.plan.launch import SAGEMAKER, Launch, write
from tuneloop.plan.offers import packaged

RENTED = [name for name, offer in packaged().offers.items() if not offer.accelerator.startswith("tpu")]
SKY = [name for name in RENTED if packaged().offers[name].provider != SAGEMAKER]
AMAZON = [name for name in RENTED if packaged().offers[name].provider == SAGEMAKER]


def launch(machine: str, shape: str = "qwen2.5-0.5b-instruct", kind: str = "lora") -> Launch:
    asked = question(shape_named(shape), job(1000, 500), [machine], [kind])
    return Launch("reviews", "recipe.yaml training.epochs=1", named(machine), asked.cells()[0])


@pytest.mark.parametrize("name", SKY)
def test_skypilots_file(name: str) -> None:
    text = launch(name).text()
    task: dict[str, Any] = yaml.safe_load(text)
    offer = packaged().offers[name]
    assert task["resources"]["instance_type"] == offer.instance
    assert task["resources"]["infra"].split("/")[0] in {"aws", "gcp", "azure", "lambda", "runpod"}
    assert task["resources"]["infra"].endswith(offer.region)
    assert task["resources"]["disk_size"] >= 100
    assert task["run"].strip() == "tuneloop run recipe.yaml training.epochs=1 --folder run"
    assert "tuneloop[eval]" in task["setup"]
    assert "Not run by tuneloop" in text
    assert ("uses one of the 8 devices" in text) == (offer.devices == 8)


@pytest.mark.parametrize("name", SKY)
def test_skypilot_takes_it(name: str) -> None:
    schemas = pytest.importorskip("sky.utils.schemas")
    import jsonschema

    jsonschema.validate(yaml.safe_load(launch(name).text()), schemas.get_task_schema())
    jsonschema.validate(yaml.safe_load(launch(name).text())["resources"], schemas.get_resources_schema())


@pytest.mark.parametrize("name", AMAZON)
def test_sagemakers_file(name: str) -> None:
    made = json.loads(launch(name).text())
    assert made["ResourceConfig"]["InstanceType"] == packaged().offers[name].instance
    assert made["AlgorithmSpecification"]["ContainerEntrypoint"][-1].endswith(
        "tuneloop run recipe.yaml training.epochs=1 --folder /opt/ml/model/run")
    assert made["StoppingCondition"]["MaxRuntimeInSeconds"] >= 3600


@pytest.mark.parametrize("name", AMAZON)
def test_amazons_model_takes_it(name: str) -> None:
    session = pytest.importorskip("botocore.session").get_session()
    from botocore.validate import ParamValidator

    shape = session.get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
    made = json.loads(launch(name).text())
    report = ParamValidator().validate(made, shape)
    assert not report.has_errors(), report.generate_report()
    for value, at in strings(made, shape):
        if pattern := at.metadata.get("pattern"):
            assert re.fullmatch(pattern, value), (value, pattern)
        if at.enum:
            assert value in at.enum


def strings(value: Any, shape: Any) -> list[tuple[str, Any]]:
    """Every text with its shape in the service's model."""
    if shape.type_name == "structure":
        return [found for key, inner in value.items() for found in strings(inner, shape.members[key])]
    if shape.type_name == "list":
        return [found for inner in value for found in strings(inner, shape.member)]
    return [(value, shape)] if shape.type_name == "string" else []


def test_quantised_methods_bring_their_package() -> None:
    assert "tuneloop[eval,quant]" in launch("runpod-rtx4090", kind="qlora").text()


@pytest.mark.parametrize(("machine", "shape", "kind", "said"), [
    ("gcp-tpu-v5e", "qwen2.5-0.5b-instruct", "lora", "no path for TPUs"),
    ("a100-80gb", "qwen2.5-0.5b-instruct", "lora", "is no offer of a provider"),
    ("lambda-a10", "70b-like", "lora", "does not fit on lambda-a10"),
    ("aws-p4d", "13b-like", "full", "only sharded over 8 devices, and `tuneloop run` uses one"),
])
def test_what_would_not_run_is_not_launched(machine: str, shape: str, kind: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        launch(machine, shape, kind).text()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    told = write(launch("lambda-a10"), tmp_path / "job.yaml")
    assert "never been run" in told[-1]
    with pytest.raises(UserError, match="exists already"):
        write(launch("lambda-a10"), tmp_path / "job.yaml")
    assert "REPLACE-ME" in write(launch("sagemaker-g5"), tmp_path / "job.json")[0]
