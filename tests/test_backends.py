"""Everything but the export works on every backend of Keras, each in a process of its own."""

import pytest
from backend_runs import run_on

# Tests that every backend must pass; a file, or a class or function in it. Models are compiled anew
# on each, which takes long: one of each kind is enough.
EVERYWHERE = [
    "test_balanced_batches.py",
    "test_gradient_modulation.py::test_the_next_epoch_uses_them",
    "test_gradient_modulation.py::test_only_the_scaled_branch_is_slower_by_exactly_that_factor",
    "test_doctor_joins.py::TestGradientShares",
    "test_doctor_joins.py::test_the_gradient_of_a_polynomial",
    "test_freezing.py::TestFrozenStaysAsItIs",
    "test_losses.py",
    "test_residual.py::test_it_starts_as_the_best_member_to_the_bit",
    "test_residual.py::test_it_learns_what_no_member_has",
    "test_tree_ensemble.py::test_equals_scikit_learn_on_random_fits",
    "test_tree_ensemble.py::test_two_trees_worked_by_hand",
    "test_tree_ensemble.py::test_rows_near_a_threshold_go_the_same_way",
]
KINDS = "not image and not multiclass and not sequential"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_what_holds_on_tensorflow_holds_on_others(backend):
    files = [f"tests/{name}" for name in EVERYWHERE]
    options = ["-n0", "-m", "", "-p", "no:cacheprovider", "-k", KINDS]
    # Compiling takes longer than what is compiled.
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    printed = run_on(backend, "-m", "pytest", *options, *files, **settings)
    assert "[100%]" in printed
