"""All checks of how a model is wired: outputs, joins, frozen parts, batches and what drives it."""

from __future__ import annotations

from kfusion.doctor import (
    batch_checks,
    frozen_checks,
    join_checks,
    learning_checks,
    output_checks,
)

CHECKS = (
    *output_checks.CHECKS,
    *join_checks.CHECKS,
    *frozen_checks.CHECKS,
    *batch_checks.CHECKS,
    *learning_checks.CHECKS,
)
