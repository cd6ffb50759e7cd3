"""The three sentences at the top of the page: how good, for whom, what is guaranteed.

Each is made from the numbers of `metrics.json` and `plan.json` alone, and says in its place when
one is missing. Must not soften: the sentences are the same whatever the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from dpmed.report.numbers import (
    Estimate,
    at_most,
    compact,
    estimate,
    group_name,
    label_name,
    scientific,
)
from dpmed.report.run_files import DAMAGED, RunFiles, is_number

SUMMARIES = ("macro", "micro")
NOT_COMPARED = ("missing", "outside the bins")  # rows without the attribute are no group
_EQUALS = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One answer, and the fine print under it."""

    question: str
    answer: str
    detail: str


def headline(run: RunFiles) -> list[Sentence]:
    """How good, for whom, and what is guaranteed."""
    return [
        _guarded("How good is it?", _how_good, run),
        _guarded("For whom?", _for_whom, run),
        _guarded("What is guaranteed?", _what_is_guaranteed, run),
    ]


def reported_split(run: RunFiles) -> tuple[str, Mapping[str, Any]]:
    """The split that the page speaks about, test if it is there; empty without metrics."""
    splits = run.metrics.get("splits")
    if not isinstance(splits, Mapping):
        return "test", {}
    for name in ("test", *splits):
        if isinstance(splits.get(name), Mapping):
            return name, splits[name]
    return "test", {}


def mapping(parent: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A nested part of a JSON file; empty where any step is missing or not a mapping."""
    node: Any = parent
    for name in names:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _guarded(question: str, say: Callable[[RunFiles, str], Sentence], run: RunFiles) -> Sentence:
    try:
        return say(run, question)
    except DAMAGED as error:
        reason = f"Not known: the files hold something unexpected here ({type(error).__name__})."
        return Sentence(question=question, answer=reason, detail="")


def _how_good(run: RunFiles, question: str) -> Sentence:
    split, results = reported_split(run)
    auroc = mapping(results, "auroc")
    macro = estimate(auroc.get("macro"))
    if macro.value is None:
        reason = run.problems.get("metrics.json", macro.reason)
        return Sentence(question=question, answer=f"Not known: {reason}", detail="")
    labels = {name: estimate(entry) for name, entry in auroc.items() if name not in SUMMARIES}
    answer = (
        f"Shown one image with a finding and one without, the model ranks them correctly about "
        f"{100 * macro.value:.0f} times in 100: AUROC {macro.text}, mean of {len(labels)} labels."
    )
    return Sentence(question=question, answer=answer, detail=_range_of_labels(run, split, labels))


def _range_of_labels(run: RunFiles, split: str, labels: Mapping[str, Estimate]) -> str:
    size = split_size(run, split)
    known = {name: item for name, item in labels.items() if item.value is not None}
    parts = [f"Measured on {size}."]
    if len(known) > 1:
        ranked = sorted(known, key=lambda name: known[name].value or 0.0)
        worst, best = ranked[0], ranked[-1]
        parts.append(
            f"Best for {label_name(best).lower()}, {known[best].text}; "
            f"weakest for {label_name(worst).lower()}, {known[worst].text}."
        )
    missing = sorted(set(labels) - set(known))
    if missing:
        parts.append(f"Not estimable: {', '.join(label_name(name).lower() for name in missing)}.")
    return " ".join(parts)


def split_size(run: RunFiles, split: str) -> str:
    """Such as `412 test images of 250 patients`; only what the files say."""
    sheet = mapping(run.data_sheet, "splits", split)
    counts = {**sheet, **mapping(run.metrics, "splits", split)}
    images, patients = counts.get("num_images"), counts.get("num_patients")
    if sheet.get("num_patients", patients) is None:
        patients = None  # nobody knows whose the images are; the metrics took each for a patient
    if not is_number(images):
        images = len(run.predictions[split]) if split in run.predictions else None
    if images is None:
        return f"the {split} split (its size was not written)"
    words = f"{images:,} {split} images"
    return f"{words} of {patients:,} patients" if is_number(patients) else words


def _for_whom(run: RunFiles, question: str) -> Sentence:
    _, results = reported_split(run)
    groups = macro_by_group(results)
    if not groups:
        reason = run.problems.get("metrics.json", "no subgroup was evaluated.")
        return Sentence(question=question, answer=f"Not known: {reason}", detail="")
    known = [
        (where, item)
        for where, item in groups
        if item.value is not None and where[1] not in NOT_COMPARED
    ]
    hidden = [(where, item) for where, item in groups if item.value is None]
    not_estimable = "; ".join(_described(where) for where, _ in hidden)
    detail = f"{len(groups)} groups looked at"
    detail += f"; too few cases to judge: {not_estimable}." if hidden else ", all estimable."
    if not known:
        return Sentence(
            question=question, answer="No group had enough cases for an estimate.", detail=detail
        )
    return Sentence(question=question, answer=_contrast(known), detail=detail)


def macro_by_group(results: Mapping[str, Any]) -> list[tuple[tuple[str, str], Estimate]]:
    """The mean AUROC of every group of every single attribute, in the order of the file."""
    found = []
    for attribute, groups in mapping(results, "subgroups").items():
        if is_intersection(attribute):
            continue
        for group in groups if isinstance(groups, Mapping) else ():
            macro = mapping(results, "subgroups", attribute, group, "auroc").get("macro")
            found.append(((attribute, group), estimate(macro)))
    return found


def is_intersection(attribute: str) -> bool:
    """Whether groups of this attribute combine two others, as in `sex & age`."""
    return " & " in attribute


def _contrast(known: list[tuple[tuple[str, str], Estimate]]) -> str:
    sexes = [(where, item) for where, item in known if where[0] == "sex"]
    first = ""
    if len(sexes) > 1:
        words = " and ".join(
            f"{item.text} for {group_name(*where).lower()}" for where, item in sexes
        )
        first = f"Mean AUROC is {words}. "
    ranked = sorted(known, key=lambda pair: pair[1].value or 0.0)
    (worst, low), (best, high) = ranked[0], ranked[-1]
    if worst == best:
        return f"{first}Only {_described(worst)} could be judged: {low.text}."
    return (
        f"{first}Of all groups it is weakest for {_described(worst)}, {low.text}, "
        f"and best for {_described(best)}, {high.text}."
    )


def _described(where: tuple[str, str]) -> str:
    attribute, group = where
    name = group_name(attribute, group)
    if attribute == "sex" and name in ("Women", "Men"):
        return name.lower()
    if attribute == "age":
        return f"ages {name.removesuffix(' years')}"
    return f"{attribute} {name}"


def _what_is_guaranteed(run: RunFiles, question: str) -> Sentence:
    plan = run.plan
    if not plan:
        return Sentence(
            question=question, answer=f"Not known: {run.problems['plan.json']}", detail=""
        )
    if not run.dp_enabled:
        return Sentence(
            question=question,
            answer="Nothing. This model was trained without differential privacy; its weights may "
            "reveal who was in the training data.",
            detail="It is a reference for what privacy costs, not a model to release.",
        )
    if not run.is_private:
        return Sentence(
            question=question,
            answer="Nothing. The noise came from a key that was handed in for a test, so anyone "
            "with that key can remove it.",
            detail="Every epsilon on this page is what the same run would give with a secret key.",
        )
    sentence = _guarantee(plan, question)
    if run.is_finished:
        return sentence
    return replace(sentence, answer=f"Planned, once the run is finished: {sentence.answer}")


def _guarantee(plan: Mapping[str, Any], question: str) -> Sentence:
    unit = str(plan.get("unit", "unit"))
    whose = "patient, all images together" if unit == "patient" else f"{unit}, not each patient"
    answer = (
        f"The released weights are differentially private for each training {whose}: epsilon "
        f"{at_most(float(plan['epsilon']))} at delta {scientific(float(plan['delta']))}."
    )
    accuracy, detail = plan.get("membership_accuracy"), ""
    if is_number(accuracy):
        detail = (
            f"Someone who knows everything else and must guess whether one {unit} took part is "
            f"right at most {percent_at_most(accuracy)} of the time, whatever the attack; a coin "
            f"flip is right 50 %. "
        )
    detail += (
        f"The number of training {unit}s, N = {compact(plan.get('num_units'))}, is declared public."
    )
    return Sentence(question=question, answer=answer, detail=detail.replace(" = ", _EQUALS))


def percent_at_most(share: float) -> str:
    """A share below one in percent, rounded up and never to 100 %, so that a bound stays one."""
    for digits in (1, 2, 3, 4):
        shown = ceil(share * 10 ** (digits + 2)) / 10**digits
        if shown < 100:
            return f"{shown:.{digits}f} %"
    return "100 %"
