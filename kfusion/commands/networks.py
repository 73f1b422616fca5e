"""The networks that a command's arguments ask for, and what is wrong with them."""

from __future__ import annotations

import argparse
from pathlib import Path

from kfusion.commands.mistakes import CommandError, user_input

# Where files alone say how large images are: any application takes this.
_USUAL_SHAPE = (224, 224, 3)


def check_networks(arguments: argparse.Namespace) -> None:
    """Raises what is wrong with fusions or backbone whatever the data are, before these are read.

    Keras is loaded only where it is needed for that, so that a mistake in the data shows soon.
    """
    backbone, weights = arguments.backbone, arguments.weights
    if backbone == "conv" and weights is not None:
        raise CommandError(
            f"--weights {weights} are those of an application: name it with --backbone."
        )
    if arguments.freeze and weights is None:
        wanted = "--backbone with --weights" if backbone == "conv" else "--weights"
        raise CommandError(
            f"--freeze would keep {backbone!r} at random weights: give {wanted} (imagenet or a "
            "file), or leave --freeze out."
        )
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise CommandError(f'--weights must be "imagenet" or a file. There is no file {weights}.')
    if arguments.fusions is not None:
        from kfusion.models.building import FUSIONS

        unknown = [name for name in arguments.fusions if name not in FUSIONS]
        if unknown:
            raise CommandError(
                f"--fusions: there is no fusion {unknown[0]!r}. There are: {', '.join(FUSIONS)}."
            )
    if backbone != "conv":
        from kfusion.branches import image_branch

        with user_input():
            image_branch(arguments.image_shape or _USUAL_SHAPE, **_of_images(arguments))


def branches_asked_for(arguments: argparse.Namespace):
    """A callable from training rows to builders of branches, as the arguments ask for."""
    from functools import partial

    from kfusion.validation.baselines import default_branches

    return partial(default_branches, **_of_images(arguments))


def describe_images(arguments: argparse.Namespace) -> dict:
    """What networks of images depend on; a file of weights is known by its size and time too."""
    keywords = _of_images(arguments)
    if arguments.weights is not None and Path(arguments.weights).is_file():
        state = Path(arguments.weights).stat()
        keywords["weights"] = [arguments.weights, state.st_size, state.st_mtime_ns]
    return keywords


def check_buildable(builders) -> None:
    """Raises what is wrong with branches before anything is trained."""
    for builder in builders.values():
        builder()


def _of_images(arguments: argparse.Namespace) -> dict:
    """Keywords of `image_branch`."""
    return {
        "backbone": arguments.backbone,
        "weights": arguments.weights,
        "trainable": not arguments.freeze,
        "augment": arguments.augment,
        "resize": arguments.resize,
    }
