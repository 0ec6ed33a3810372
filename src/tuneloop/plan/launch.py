"""A launch file for somebody else's launcher: SkyPilot's YAML, or the JSON of SageMaker's CreateTrainingJob.

tuneloop starts no machines. The files are checked against the launchers' own schemas in the tests; no machine has been
started with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tuneloop.errors import UserError
from tuneloop.plan.cost import Cell
from tuneloop.plan.hardware import Hardware

CLOUDS = {"AWS EC2": "aws", "Google Cloud": "gcp", "Azure": "azure", "Lambda": "lambda", "RunPod": "runpod"}
"""Providers that SkyPilot knows, by its names for them."""
SAGEMAKER = "AWS SageMaker"
LONGEST_FACTOR = 3          # a job is stopped after so many times the planned time
SMALLEST_DISK_GB = 100
PLACEHOLDERS = ("000000000000", "REPLACE-ME")


@dataclass(frozen=True)
class Launch:
    """What is launched: a recipe file, with a name, on a machine, by what the plan says of it."""

    name: str
    recipe: str                 # as the remote machine finds it: relative to the recipe's folder
    machine: Hardware
    cell: Cell

    def text(self) -> str:
        """The file. Raises UserError where there is nothing to launch with, or nothing that would run."""
        offer = self.machine.offer
        if self.machine.kind == "tpu" or self.cell.fits == "refused":
            raise UserError(f"No launch file for {self.machine.name}: {self.cell.why}.",
                            fix="choose a machine with GPUs")
        if offer is None or offer.provider not in (*CLOUDS, SAGEMAKER):
            raise UserError(f"{self.machine.name} is no offer of a provider that a launcher starts machines of.",
                            wanted=f"an offer of {', '.join([*CLOUDS, SAGEMAKER])}", fix="name one with --on")
        if not self.cell.usable:
            raise UserError(f"{self.cell.method} does not fit on {self.machine.name}, so there is nothing to launch.",
                            fix="choose another machine with --on, or another method")
        if self.cell.devices_used > 1:
            raise UserError(f"{self.cell.method} fits on {self.machine.name} only sharded over "
                            f"{self.cell.devices_used} devices, and `tuneloop run` uses one.",
                            fix="choose a method or base that fits one device")
        return self._sagemaker() if offer.provider == SAGEMAKER else self._skypilot(CLOUDS[offer.provider])

    @property
    def _disk_gb(self) -> int:
        return max(SMALLEST_DISK_GB, int(2 * self.cell.disk_bytes / 1e9))

    @property
    def _extras(self) -> str:
        return "eval,quant" if self.cell.method == "qlora" else "eval"

    def _skypilot(self, cloud: str) -> str:
        offer = self.machine.offer
        assert offer
        resources: dict[str, Any] = {
            "infra": f"{cloud}/{offer.region}" if offer.region else cloud, "instance_type": offer.instance,
            "use_spot": offer.kind == "spot", "disk_size": self._disk_gb}
        task = {"name": self.name, "resources": resources, "workdir": ".",
                "setup": f"pip install 'tuneloop[{self._extras}]'\n",
                "run": f"tuneloop run {self.recipe} --folder run\n"}
        head = [f"# SkyPilot: from the recipe's folder, `sky launch --down {self.name}.yaml`. Not run by tuneloop.",
                *self._comments()]
        return "\n".join(head) + "\n" + yaml.safe_dump(task, sort_keys=False)

    def _comments(self) -> list[str]:
        offer, cell = self.machine.offer, self.cell
        assert offer
        told = [f"# Planned: {cell.method}, {cell.total_seconds / 3600:.2f} h, ${cell.usd or 0:,.2f} at the price of "
                f"{offer.as_of}; bring the result home with `rsync`, or with file_mounts of your own."]
        if self.machine.devices > 1:
            told.append(f"# `tuneloop run` uses one of the {self.machine.devices} devices of this machine.")
        return told

    def _sagemaker(self) -> str:
        offer = self.machine.offer
        assert offer
        account, word = PLACEHOLDERS
        job = {
            "TrainingJobName": self.name.replace("_", "-").replace(".", "-"),
            "AlgorithmSpecification": {
                "TrainingImage": f"{account}.dkr.ecr.{offer.region}.amazonaws.com/{word.lower()}:latest",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["bash", "-c", f"pip install 'tuneloop[{self._extras}]' && cd "
                                        "/opt/ml/input/data/recipe && tuneloop run " + self.recipe +
                                        " --folder /opt/ml/model/run"]},
            "RoleArn": f"arn:aws:iam::{account}:role/{word}",
            "InputDataConfig": [{"ChannelName": "recipe", "DataSource": {"S3DataSource": {
                "S3DataType": "S3Prefix", "S3Uri": f"s3://{word.lower()}/recipe/",
                "S3DataDistributionType": "FullyReplicated"}}}],
            "OutputDataConfig": {"S3OutputPath": f"s3://{word.lower()}/output/"},
            "ResourceConfig": {"InstanceType": offer.instance, "InstanceCount": 1, "VolumeSizeInGB": self._disk_gb},
            "StoppingCondition": {"MaxRuntimeInSeconds": max(
                3600, min(28 * 86400, int(LONGEST_FACTOR * self.cell.total_seconds)))},
        }
        return json.dumps(job, indent=2) + "\n"


def write(launch: Launch, path: Path) -> list[str]:
    """Write the file; what is to be done with it. Raises UserError."""
    text = launch.text()
    if path.exists():
        raise UserError(f"{path} exists already.", fix="choose another name with --launch")
    path.write_text(text, encoding="utf-8")
    if text.startswith("{"):
        return [f"{path} is written. Put an image with torch, a role, and the S3 places of the recipe's folder and of "
                "the output where it says REPLACE-ME and 000000000000; then: aws sagemaker create-training-job "
                f"--cli-input-json file://{path}", "It has been checked by its schema, and never been run."]
    return [f"{path} is written. From the recipe's folder: sky launch --down {path}",
            "It has been checked by its schema, and never been run."]
