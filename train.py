"""Entry point: `python train.py experiment=cxr_eps8`. Hydra composes, `dpmed.pipeline` works."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from dpmed.errors import UserError
from dpmed.overrides import check_overrides, folder_name


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(config: DictConfig) -> None:
    """One run; in a sweep, a failed one is recorded and the others go on."""
    from dpmed.launch import launch

    launch(config)


def main() -> None:
    """Checks the words of the command line, then hands over to Hydra."""
    try:
        check_overrides(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    # For conf/config.yaml: a resumed run keeps its folder, and a job's folder has a bounded name.
    OmegaConf.register_new_resolver("first_of", lambda first, second: first or second)
    OmegaConf.register_new_resolver("folder_name", folder_name)
    job()


if __name__ == "__main__":
    main()
