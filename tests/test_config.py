"""Every shipped configuration composes, and bad settings are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpmed.compose import compose
from dpmed.config import load_config, to_mapping
from dpmed.errors import UserError
from dpmed.overrides import check_overrides, config_folder, folder_name

CONF = config_folder()
VOLUMES = ["data=volumes", "data.id=h", "data.path=x.npz"]
NEEDED = {
    "data=manifest": ["data.id=h", "data.path=x.csv"],
    **{
        f"data={release}": ["data.root=x"]
        for release in (
            "chestxray14",
            "kermany",
            "chexpert",
            "mimic_cxr_jpg",
            "padchest",
            "vindr_cxr",
            "taixray",
        )
    },
    "data=volumes": [*VOLUMES[1:], "model=convnext3d"],
    "model=convnext_2p5d": VOLUMES,
    "model=convnext3d": VOLUMES,
    "experiment=ct_eps8": ["data.path=x.npz"],
    "experiment=ct_nonprivate": ["data.path=x.npz"],
    "experiment=ct_nonprivate_2p5d": ["data.path=x.npz"],
    "init=file": ["init.path=x.safetensors"],
    "init=domain": ["init.path=outputs/cxr_pretrain/x"],
}


def _choices() -> list[str]:
    return [
        f"{path.parent.name}={path.stem}"
        for path in sorted(CONF.glob("*/*.yaml"))
        if path.parent.name != "hydra"
    ]


@pytest.mark.parametrize("choice", _choices())
def test_every_shipped_choice_composes(choice: str) -> None:
    config = compose([choice, *NEEDED.get(choice, [])])
    assert load_config(to_mapping(config)) == config


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda p: p.stem)
def test_experiments_state_their_claim_and_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "# Claim:" in text
    assert f"experiment={path.stem}" in text


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("privcy.epsilon=3", "privacy.epsilon"),
        ("privacy.epsilom=3", "privacy.epsilon"),
        ("data=chestxry14", "chestxray14"),
        ("experiment=cxr_eps9", "cxr_eps8"),
        ("epsilon=3", "privacy.epsilon"),
        ("preprocessing=papr", "'paper'"),
        ("preprocessing.equalize=true", "data.preprocessing.equalize"),
        ("training.accumulate_grad_batches=4", "privacy.expected_batch_size"),
        ("training.sampler=mine", "Poisson"),
        ("training.batch_size=4", "physical_batch_size"),
        ("training.pos_weight=balanced", "outside the budget"),
        ("privacy.epsilon", "key=value"),
    ],
)
def test_misspelt_and_forbidden_words_name_the_way_out(word: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check_overrides([word])


def test_a_setting_of_another_data_set_is_refused() -> None:
    with pytest.raises(UserError, match="not a setting of data=manifest"):
        check_overrides(["data=manifest", "data.num_patients=3"])
    check_overrides(["data=chestxray14,manifest", "data.root=x"])


@pytest.mark.parametrize(
    "word",
    [
        "privacy.epsilon=1,3,8",
        "data=chestxray14",
        "+hydra.launcher=joblib",
        "--help",
        "job",
        "training.pos_weight=[1,2,3.5,4,5]",
        "data.columns.sex=Geschlecht",
        "experiment=cxr_eps8,cxr_eps1",
    ],
)
def test_good_words_pass(word: str) -> None:
    check_overrides([word])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["privacy.unit=paitent"], "privacy.unit='paitent'.*Did you mean 'patient'"),
        (["performance.precision=bf16-mixd"], r"Did you mean 'bf16-mixed'\?"),
        (["privacy.delta=2"], "privacy.delta=2"),
        (["training.num_steps=0"], "training.num_steps=0"),
        (["privacy.noise_scale=0.5"], "privacy.noise_scale"),
        (["performance.precision=16-mixed"], "16-mixed is refused"),
        (["data.labels=[a,a]"], "more than once"),
        (["training.pos_weight=[1,2]"], "2 entries for 5"),
        (["data=manifest", "data.path=x.csv"], "data.id is missing"),
        (["data=chestxray14"], "data.root is missing"),
        (["data.test_fraction=0.95"], "no patient for training"),
        (["model.kind=4d"], "model.kind='4d'.*'2.5d'"),
        (["model=convnext3d"], "model.kind=3d takes volumes.*data.reader=synthetic"),
        (VOLUMES, "model.kind=2d takes images.*model=convnext3d"),
        (["data=volumes", "data.id=h", "model=convnext3d"], "data.path is missing"),
    ],
)
def test_bad_values_are_refused_by_name(words: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        compose(words)


def test_the_data_set_says_which_unit_it_can_protect() -> None:
    assert compose(["data=vindr_cxr", "data.root=x"]).privacy.unit == "image"
    assert compose(["data=chexpert", "data.root=x"]).privacy.unit == "patient"
    assert not compose(["data=vindr_cxr", "data.root=x", "privacy=none"]).privacy.enabled
    for word in ("privacy=patient", "privacy.unit=patient"):
        with pytest.raises(UserError, match=r"names no patients.*privacy=image"):
            compose(["data=vindr_cxr", "data.root=x", word])


def test_config_hash_ignores_speed_and_loggers_only() -> None:
    reference = compose([]).config_hash
    assert compose(["performance.physical_batch_size=8", "logger=wandb"]).config_hash == reference
    assert compose(["privacy.epsilon=7"]).config_hash != reference
    assert compose(["data.num_patients=10"]).config_hash != reference


def test_long_folder_names_are_cut_and_stay_apart() -> None:
    first, second = folder_name("a=1," * 100 + "b=1"), folder_name("a=1," * 100 + "b=2")
    assert first != second
    assert len(first) == len(second) <= 150
    assert folder_name("privacy.epsilon=3,seed=0") == "privacy.epsilon=3,seed=0"
