"""Composes a configuration outside `train.py`, from the same words and the same files."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dpmed.config import DataConfig, RunConfig
from dpmed.errors import UserError
from dpmed.launch import freeze
from dpmed.overrides import check_overrides, config_folder

# How DICOM files are to be read, whatever model reads them.
_OF_THE_FILES = ("data.preprocessing.apply_window", "data.preprocessing.photometric")


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


def compose_data(words: Sequence[str]) -> DataConfig:
    """The data set that the words describe, for a model that was trained on another one.

    Args:
        words: `data=NAME` and its settings, as `train.py` takes them.

    Raises:
        UserError: as `compose`, or a word that is about the model or its evaluation.
    """
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        is_of_model = key.startswith("data.preprocessing") and key not in _OF_THE_FILES
        if key.split(".")[0] != "data" or is_of_model:
            raise UserError(
                f"{word}: only data=NAME and its settings describe the other data set; model, "
                "preprocessing, thresholds and evaluation are the run's own."
            )
    if not any(word.startswith("data=") for word in words):
        raise UserError("data is missing: name the other data set, for example data=manifest.")
    return compose(words).data
