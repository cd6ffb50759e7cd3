"""The p values against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from dpmed.errors import UserError
from dpmed.evaluation.testing import control_false_discoveries, equivalence, two_sided_p


def test_two_sided_p_is_the_formula_and_never_zero():
    assert two_sided_p(np.ones(1999)) == pytest.approx(2 / 2000)
    assert two_sided_p(np.zeros(1999)) == 1


def test_two_sided_p_counts_zero_on_both_sides():
    differences = np.array([-1.0] * 10 + [0.0] * 5 + [1.0] * 84)
    assert two_sided_p(differences) == pytest.approx(2 * 16 / 100)
    assert two_sided_p(-differences) == two_sided_p(differences)


def test_equivalence_needs_both_sides():
    inside = np.random.default_rng(0).normal(0, 0.003, 1999)
    assert equivalence(inside, margin=0.02)["equivalent"]
    better = equivalence(inside + 0.05, margin=0.02)
    assert not better["equivalent"]
    assert better["non_inferior"]
    assert not equivalence(inside - 0.05, margin=0.02)["non_inferior"]
    with pytest.raises(UserError, match="margin=0"):
        equivalence(inside, margin=0)


def test_false_discovery_control_adjusts_the_whole_family():
    p_values = {"a": 0.01, "b": 0.02, "c": 0.9}
    positive = control_false_discoveries(p_values, dependence="positive")
    assert positive["a"] == pytest.approx(0.03)
    harmonic = 1 + 1 / 2 + 1 / 3
    adjusted = control_false_discoveries(p_values)
    assert adjusted["a"] == pytest.approx(0.03 * harmonic)
    assert control_false_discoveries({}) == {}
    with pytest.raises(UserError, match="dependence=none"):
        control_false_discoveries(p_values, dependence="none")
