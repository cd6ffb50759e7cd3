"""Composes a configuration outside `train.py`, from the same words and the same files."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dpmed.config import RunConfig
from dpmed.errors import UserError
from dpmed.launch import freeze
from dpmed.overrides import check_overrides, config_folder


def compose(overrides: Sequence[str]) -> RunConfig:
    """The configuration that `python train.py OVERRIDES` would run with.

    Raises:
        UserError: a word is misspelt, or a value is missing or not allowed.
    """
    check_overrides(overrides)
    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        try:
            return freeze(hydra_compose("config", overrides=list(overrides)))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(str(error).splitlines()[0]) from None
