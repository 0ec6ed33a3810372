"""Bases that this machine cannot load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny import tiny_base
from tuneloop.errors import UserError
from tuneloop.models.load import load_model


def test_a_quantised_base_without_its_package_says_so(tmp_path: Path) -> None:
    config = tiny_base(tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {
        "quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(UserError, match="This quantised base cannot be loaded here"):
        load_model(tmp_path)
