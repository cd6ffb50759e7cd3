"""`performance.compile` outside the clipper: the forward compiled, or no compiler to do it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from dpmed.errors import UserError
from dpmed.stages import compilation


def test_a_compiled_model_keeps_its_names_copies_and_results() -> None:
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(3, 2))
    names, inputs = list(model.state_dict()), torch.randn(4, 3)
    expected = model(inputs)
    compilation.compile_in_place(model)
    torch.testing.assert_close(model(inputs), expected)
    assert list(model.state_dict()) == names
    assert copy.deepcopy(model)._compiled_call_impl is None
    torch.compiler.reset()


def test_a_machine_without_a_compiler_is_refused_with_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_compiler(*args: Any, **kwargs: Any) -> None:
        raise FileNotFoundError("g++")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(UserError, match=r"performance\.compile=true.*g\+\+"):
        compilation.refuse_without_compiler(torch.device("cpu"))
