"""scikit-learn estimators that blend every kind of model, so that the result is not worse."""

from __future__ import annotations

import dataclasses
import json
import numbers
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from kfusion.data.fingerprints import fingerprint
from kfusion.data.folds import Fold
from kfusion.data.fusion_data import FusionData
from kfusion.data.input_names import check_input_names
from kfusion.data.inputs import IMAGE, check_lengths
from kfusion.data.loading import name_image_inputs
from kfusion.data.tables import UNSEEN_CODE, TableSchema
from kfusion.doctor.before_training import warn_before_training
from kfusion.estimators.bagging import bag
from kfusion.estimators.blended_model import build_blended_model
from kfusion.estimators.estimator_folds import plan_folds
from kfusion.estimators.estimator_inputs import (
    Modalities,
    as_frame,
    read_modalities,
    table_of,
)
from kfusion.estimators.estimator_targets import read_labels, read_values
from kfusion.estimators.member_inputs import features_of, make_encoders
from kfusion.estimators.members import Member, Rows, standard_members
from kfusion.estimators.out_of_fold import BLEND, OutOfFold
from kfusion.estimators.presence_blends import PresenceBlends
from kfusion.estimators.present_rows import present_rows
from kfusion.evidence.delong import number_groups
from kfusion.exports.card_facts import CardFacts, facts_of_comparison
from kfusion.exports.export import export_saved_model
from kfusion.json_values import describe
from kfusion.models.prediction import predict
from kfusion.tasks import Task
from kfusion.tasks import task as make_task
from kfusion.validation.comparison import Comparison
from kfusion.versions import library_versions
from kfusion.whole_folders import whole_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows that are predicted at a time.
BATCH = 64
# More would only make the blend larger.
MAX_FOLDS = 20
MODEL_FILE, ABOUT_FILE, ROWS_FILE = "model.keras", "estimator.json", "out_of_fold.npz"


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much work a fit is.

    Attributes:
        folds: Int; 1 is one split, a fifth of the rows held out.
        repeats: Int, how often the folds are drawn anew.
        encoder: Of the table network; see `tabular_branch`.
        residual: Whether the fused network only corrects the better of the other two.
    """

    folds: int
    repeats: int = 1
    encoder: str = "mlp"
    residual: bool = False


EFFORTS = {
    "fast": Effort(1, residual=True),
    "default": Effort(4, encoder="tabm"),
    "thorough": Effort(5, repeats=2, encoder="tabm"),
}


class _FusionEstimator(BaseEstimator):
    """What both estimators share."""

    def __init__(
        self,
        *,
        image_column: str | Sequence[str] | None = None,
        image_folder: str | os.PathLike | None = None,
        text_columns: Sequence[str] = (),
        image_shape: tuple[int, int, int] | None = None,
        image_backbone: str | keras.Model | None = None,
        effort: str = "default",
        members: list[str] | None = None,
        num_folds: int | None = None,
        epochs: int | None = None,
        directory: str | os.PathLike | None = None,
        random_state: int | None = 0,
        verbose: int = 0,
    ):
        self.image_column = image_column
        self.image_folder = image_folder
        self.text_columns = text_columns
        self.image_shape = image_shape
        self.image_backbone = image_backbone
        self.effort = effort
        self.members = members
        self.num_folds = num_folds
        self.epochs = epochs
        self.directory = directory
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, groups: Any = None, sample_weight: Any = None):
        """Fits all members on each fold, and the blend on what they say of the rows held out.

        Args:
            X: Rows as the class says.
            y: `(rows,)` targets; not needed for `FusionData`.
            groups: `(rows,)` values: rows that share one are never split over folds.
            sample_weight: `(rows,)` floats of 0 or more, how much each row counts in training and
                in the blend. Which epoch a network keeps, and `evidence_`, count rows alike.

        Returns:
            The estimator.

        Raises:
            ValueError: If rows, columns, targets, groups, folds or weights do not fit. The message
                names what. All this before anything is trained.
            TypeError: If `X` is of no kind that is known.
            FoldError: If a member fails; names it and its fold.
        """
        self._check_settings()
        # What an earlier fit learned would mix with this one's, should this one be refused.
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        effort = EFFORTS[self.effort]
        self.image_columns_, self.target_ = self._name_columns(X, y)
        if isinstance(X, FusionData):
            self._check_kind(X)
            y = self._targets_of(X) if y is None else y
            groups = X.groups if groups is None else groups
        if y is None:
            raise ValueError("This estimator requires y to be passed, but the target y is None.")
        given = self._read(X, reset=True)
        targets, task = self._read_target(y)
        check_lengths({"X": range(len(given)), "y": targets})
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, targets, ensure_non_negative=True)
        if groups is not None:
            number_groups(groups, len(targets))
            groups = np.asarray(groups)
        seed = self._draw_seed()
        wanted = effort.folds if self.num_folds is None else self.num_folds
        folds = plan_folds(wanted, targets, task, groups, repeats=effort.repeats, seed=seed)
        # Of the table alone, never of targets: so one for all folds, and one in the exported graph.
        self.schema_ = None
        if given.frame is not None:
            self.schema_ = TableSchema.fit(given.frame, given.column_kinds, allow_empty=True)
        inputs = [] if self.schema_ is None else self.schema_.input_names
        check_input_names([*given.arrays, *inputs])
        encoded = self._encode(given)
        warn_before_training(None, encoded, targets, task=task, groups=groups, schema=self.schema_)
        present = present_rows(encoded, self.schema_)
        self._encoders: dict[str, keras.Model] = make_encoders(
            encoded, self.schema_, present, backbone=self.image_backbone, seed=seed
        )
        x = self._encode_for_members(encoded)
        rows = Rows(x, targets, weights, present)
        members = self._choose_members(x, encoded, effort)
        if self.members is None:
            members = _with_rows(members, rows, folds)
        about = None
        if self.directory is not None:
            data = {**x, "y": targets, "folds": _numbers(folds, len(targets))}
            if weights is not None:
                data["sample_weight"] = weights
            settings = self.get_params(deep=False)
            for name in ("directory", "image_folder", "verbose"):
                del settings[name]
            about = {"rows": fingerprint(data), **describe(settings)}
        results = bag(
            members,
            rows,
            folds,
            task=task,
            seed=seed,
            directory=None if self.directory is None else Path(self.directory),
            about=about,
            verbose=self.verbose,
        )
        self.task_ = task
        self.results_ = results
        self._out_of_fold = OutOfFold(
            results,
            {name: member.modalities for name, member in members.items()},
            groups,
            weights,
            seed,
            present,
        )
        blends = self._set_blend()
        self.model_ = build_blended_model(
            {name: result.models for name, result in self.results_.items()},
            blends,
            task=task,
            schema=self.schema_,
            encoders=self._encoders,
        )
        return self

    def _set_blend(self) -> PresenceBlends:
        blends = self._out_of_fold.fit_blends()
        self.blend_ = blends.whole
        self.weights_ = dict(self.blend_.weights)
        self._evidence: Comparison | None = None
        return blends

    @property
    def evidence_(self) -> Comparison:
        """`Comparison` of all members and the blend on rows that they were not trained on.

        The blend is judged fold by fold with weights learned on the other folds. All members were
        stopped by the rows that judge them, which favours them and the blend alike.
        """
        check_is_fitted(self)
        if self._evidence is None:
            self._evidence = self._out_of_fold.compare(verbose=self.verbose)
        return self._evidence

    @property
    def member_inputs_(self) -> dict[str, tuple[str, ...]]:
        """Names of the inputs that each member learned from, by member."""
        check_is_fitted(self)
        return dict(self._out_of_fold.modalities)

    @property
    def verdict_(self) -> str:
        """One sentence: the blend against the best single input."""
        return self.evidence_.pairs[BLEND].verdict

    def plot_evidence(self, ax: Any = None) -> Figure:
        """Draws each member's score and the blend's with intervals, and the best single input."""
        return self.evidence_.plot(ax)

    def modality_values(self) -> dict[str, float]:
        """What each modality adds to the score, by Shapley, from refitted blends.

        The score of a set of modalities is that of the blend of the members that learned from
        these alone, out of fold; that of none is what random scores reach (0.5 for an AUC), or
        the error of the mean. Above 0 is good for any score.
        """
        check_is_fitted(self)
        return self._out_of_fold.modality_values()

    def which_rows(self, num_rows: int | None = 20) -> pd.DataFrame:
        """Lists the rows that the blend corrects, and those that it breaks; see `which_rows`.

        Out of fold, against the single input that is best over all rows.

        Args:
            num_rows: Int, how many of each at most; None for all.

        Raises:
            TypeError: If `num_rows` is none of these, such as a table: the rows are those of `fit`.
        """
        if num_rows is not None and not isinstance(num_rows, (int, np.integer)):
            raise TypeError(
                "`which_rows` tells of the rows that `fit` was given, and takes `num_rows` alone: "
                f"an int, or None. Received: {type(num_rows).__name__}."
            )
        return self._out_of_fold.which_rows(self.evidence_, num_rows)

    def count_unseen(self, X: Any) -> dict[str, int]:
        """Counts the rows whose category was not met at `fit`, or too rarely, by column.

        Such rows are predicted with the code of unseen categories.
        """
        check_is_fitted(self)
        frame = table_of(X)
        if self.schema_ is None or frame is None:
            return {}
        codes = self.schema_.encode(frame)[:, len(self.schema_.numbers) :]
        return {
            column.name: int(np.sum(codes[:, i] == UNSEEN_CODE))
            for i, column in enumerate(self.schema_.categories)
        }

    def export(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes one SavedModel of all members, folds and the blend, raw columns in.

        Its model card tells `evidence_`. Args and errors are those of `export_saved_model`.
        """
        check_is_fitted(self)
        schema = None
        if self.schema_ is not None:
            schema = self.schema_.only([tensor.name for tensor in self.model_.inputs])
        return export_saved_model(
            self.model_,
            path,
            schema=schema if schema is not None and schema.columns else None,
            class_names=self.task_.class_names or None,
            image_columns=self.image_columns_,
            overwrite=overwrite,
            facts=self._card_facts(),
        )

    def _card_facts(self) -> CardFacts:
        """What the model card tells: `evidence_`, or why there is none."""
        lacking = {n: float(np.mean(~mask)) for n, mask in self._out_of_fold.present.items()}
        try:
            # The same scores, intervals and verdict, without a bootstrap beside DeLong's test.
            evidence = self._evidence or self._out_of_fold.compare(num_resamples=0)
        except ValueError as error:
            return CardFacts(
                rows=len(self._out_of_fold.y),
                missing_inputs=lacking,
                target=self.target_,
                how=str(error),
            )
        others = evidence.results[BLEND].summary()["mean"].drop(evidence.score.name)
        told = facts_of_comparison(
            json.loads(evidence.to_json()),
            missing_inputs=lacking,
            target=self.target_,
            others=others.to_dict(),
        )
        return dataclasses.replace(
            told,
            how=f"{told.how} Members were stopped by the rows that judge them, and the exported "
            "blend joins the models of all folds. Folds and networks were drawn with seed "
            f"{self._out_of_fold.seed}.",
        )

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes a folder that `load` reads: the Keras model, the evidence, settings. No pickle.

        Raises:
            FileExistsError: If `path` exists and `overwrite` is false.
        """
        check_is_fitted(self)
        with whole_folder(path, overwrite=overwrite, known_by=ABOUT_FILE) as folder:
            self.model_.save(folder / MODEL_FILE)
            text = json.dumps(self._describe(), ensure_ascii=False, indent=1)
            (folder / ABOUT_FILE).write_text(text, encoding="utf-8")
            np.savez(folder / ROWS_FILE, allow_pickle=False, **self._out_of_fold.to_arrays())
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Reads what `save` wrote. The fold models are inside `model_`; `results_` has none.

        Raises:
            FileNotFoundError: If it is no such folder.
            ValueError: If it holds the other kind of estimator.
        """
        folder = Path(path)
        if not (folder / ABOUT_FILE).exists():
            raise FileNotFoundError(f"{folder} holds no saved estimator: it lacks {ABOUT_FILE}.")
        about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        if about["class"] != cls.__name__:
            raise ValueError(f"{folder} holds a {about['class']}: load it with that.")
        loaded = cls(**{**about["params"], "image_shape": _tuple(about["params"]["image_shape"])})
        loaded.model_ = keras.models.load_model(folder / MODEL_FILE, compile=False)
        with np.load(folder / ROWS_FILE, allow_pickle=False) as rows:
            arrays = {name: rows[name] for name in rows.files}
        loaded._restore(about, arrays)
        return loaded

    def _restore(self, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.task_ = make_task(
            about["kind"], y=arrays["y"], class_names=about["class_names"] or None
        )
        self.schema_ = None if about["schema"] is None else TableSchema.from_json(about["schema"])
        self.n_features_in_ = about["n_features_in"]
        if about["feature_names_in"] is not None:
            self.feature_names_in_ = np.array(about["feature_names_in"], object)
        self.input_shapes_ = {name: tuple(shape) for name, shape in about["input_shapes"].items()}
        # Folders of earlier versions lack them.
        self.image_columns_ = about.get("image_columns", {})
        self.target_ = about.get("target")
        modalities = {name: tuple(used) for name, used in about["modalities"].items()}
        self._out_of_fold = OutOfFold.from_arrays(
            arrays,
            modalities,
            task=self.task_,
            histories=about["histories"],
            seed=about["seed"],
        )
        self.results_ = dict(self._out_of_fold.results)
        self._set_blend()
        self._encoders = {}

    def _describe(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        if isinstance(params["image_backbone"], keras.Model):
            # It is a part of the model by now.
            params["image_backbone"] = None
        params["random_state"] = self._out_of_fold.seed
        for name, value in params.items():
            if isinstance(value, os.PathLike):
                params[name] = str(value)
            elif isinstance(value, np.generic):
                params[name] = value.item()
        names = getattr(self, "feature_names_in_", None)
        return {
            "class": type(self).__name__,
            "params": params,
            "kind": self.task_.kind,
            "class_names": list(self.task_.class_names),
            "classes": None,
            "schema": None if self.schema_ is None else self.schema_.to_json(),
            "modalities": self._out_of_fold.modalities,
            "histories": self._out_of_fold.histories(),
            "seed": self._out_of_fold.seed,
            "n_features_in": self.n_features_in_,
            "feature_names_in": None if names is None else list(names),
            "input_shapes": self.input_shapes_,
            "image_columns": self.image_columns_,
            "target": self.target_,
            "weights": self.weights_,
            "versions": library_versions(),
        }

    def _read(self, X: Any, *, reset: bool) -> Modalities:
        """The gate: images and table of `X`, the same as at `fit` after that."""
        if isinstance(X, (FusionData, Mapping, pd.DataFrame)) or self.image_column is not None:
            given = read_modalities(
                X,
                image_column=self.image_column,
                image_folder=self.image_folder,
                text_columns=self.text_columns,
                shapes=self._wanted_shapes() if reset else self.input_shapes_,
                verbose=self.verbose,
            )
            if given.frame is not None:
                validate_data(self, given.frame, reset=reset, skip_check_array=True)
            elif reset:
                self.n_features_in_ = 0
        else:
            # Also names what is sparse, complex, infinite or of another number of columns.
            X = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
            # By place, as scikit-learn takes a matrix where a frame was fitted.
            given = Modalities({}, as_frame(X, None if reset else self._column_names()))
        if reset:
            self.input_shapes_ = given.shapes
            return given
        lacking = [name for name in self.input_shapes_ if name not in given.arrays]
        if self.schema_ is not None and given.frame is None:
            lacking += self.schema_.input_names
        if lacking:
            raise ValueError(f"`X` lacks the {lacking[0]!r} input that this was fitted on.")
        return given

    def _name_columns(self, X: Any, y: Any) -> tuple[dict[str, str], str | None]:
        """The table's columns of images by input name, and that of the target, as far as known."""
        columns = {} if self.image_column is None else name_image_inputs(self.image_column)
        target = getattr(y, "name", None)
        if isinstance(X, FusionData):
            columns = dict(X.image_columns)
            target = X.target if y is None else target
        return columns, None if target is None else str(target)

    def _wanted_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes that images must have, by input name, as far as they are given."""
        if self.image_shape is None:
            return {}
        columns = {} if self.image_column is None else name_image_inputs(self.image_column)
        return dict.fromkeys([IMAGE, *columns], tuple(self.image_shape))

    def _encode(self, given: Modalities) -> dict[str, np.ndarray]:
        """Inputs of the whole model."""
        if self.schema_ is None or given.frame is None:
            return dict(given.arrays)
        return {**given.arrays, **self.schema_.inputs(given.frame)}

    def _encode_for_members(self, encoded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs of the members: what encoders make of the inputs too."""
        x = dict(encoded)
        for name, encoder in self._encoders.items():
            x[name] = predict(encoder, x)
        # Features stand for their image.
        return {name: array for name, array in x.items() if features_of(name) not in x}

    def _choose_members(
        self, x: Mapping[str, np.ndarray], inputs: Mapping[str, Any], effort: Effort
    ) -> dict[str, Member]:
        standard = standard_members(
            x,
            list(inputs),
            self.schema_,
            encoder=effort.encoder,
            residual=effort.residual,
            epochs=self.epochs,
        )
        if self.members is None:
            return standard
        unknown = [name for name in self.members if name not in standard]
        if unknown or not self.members or len(set(self.members)) < len(self.members):
            raise ValueError(
                f"`members` must be of {list(standard)}, each once. Received: {self.members}."
            )
        return {name: standard[name] for name in self.members}

    def _draw_seed(self) -> int:
        if self.random_state is None or isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state or 0)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        given = self._read(X, reset=False)
        x = self._encode(given)
        # Batches of one size, the last one filled up: nothing is compiled twice, and a row's answer
        # does not depend on how many others are asked for.
        rows = len(given)
        filled = np.minimum(np.arange(-(-rows // BATCH) * BATCH), rows - 1)
        x = {name: array[filled] for name, array in x.items()}
        return predict(self.model_, x, batch_size=BATCH)[:rows].astype(np.float64)

    def _column_names(self) -> list[str] | None:
        return None if self.schema_ is None else self.schema_.names

    def _check_settings(self) -> None:
        if self.effort not in EFFORTS:
            raise ValueError(f"`effort` must be one of {list(EFFORTS)}. Received: {self.effort!r}.")
        for name in ("epochs", "num_folds"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, numbers.Integral) or value < 1):
                raise ValueError(
                    f"`{name}` must be an int of 1 or more, or None. Received: {value!r}."
                )
        if (self.num_folds or 1) > MAX_FOLDS:
            raise ValueError(
                f"`num_folds` must be {MAX_FOLDS} at most: every member is fitted on each, and all "
                f"are kept. Received: {self.num_folds}."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


class FusionClassifier(ClassifierMixin, _FusionEstimator):
    """Classifies rows of images, tables and more by a blend of networks and boosted trees.

    Every kind of model is fitted on each of several folds and judged on the rows held out: a
    network of each input, such as an image and a table, one of all of them, boosted trees on the
    table and on the table beside a few components of the other inputs. On what they say of rows
    that they were not trained on, the blend learns how much each counts (see `fit_blend`); each is
    among its possible answers, so that a useless input costs next to nothing. The result is one
    Keras model.

    Rows (`X`) are a DataFrame, whose `image_column`, if there is one, holds paths or arrays;
    `FusionData`; numbers, `(rows, columns)`; or a dict of inputs by name, any number of them:
    "tabular" (a DataFrame or numbers), and by names of your choice uint8 images `(rows, height,
    width, channels)`, several images a row `(rows, count, height, width, channels)`, embeddings
    `(rows, features)`, sequences `(rows, steps, channels)` and texts (`(rows,)` strings). Missing
    values and categories not seen before are fine. Where there are several inputs, rows may lack
    some of them, in `fit` and after it: an empty cell, or an image of zeros alone; nothing but
    missing values (NaN). The members that do without them answer for such rows, by a blend of
    their own. Columns are those of `fit`, in its
    order: take out what is no input, such as the target or the column of `groups`. Image files are
    resized to the size seen at `fit`, arrays of another size refused.

    Args:
        image_column: Name of the DataFrame's column of images, or a list of several, each an input
            of its own.
        image_folder: Where relative paths start; by default the working directory.
        text_columns: Names of the DataFrame's columns of free text, each an input of its own.
        image_shape: `(height, width, channels)` to which files are resized; by default that of the
            first file of each column.
        image_backbone: A trained Keras model, `.keras` file or the name of one in
            `keras.applications` (ImageNet weights), whose features stand for the image. It stays
            frozen and runs once per image. None trains a small network from the pixels.
        effort: "fast": one split, and the fused network corrects the better of the other two;
            "default": 4 folds, and an ensemble of table networks in one (TabM); "thorough": the
            same on 5 folds, drawn twice.
        members: Names of the members to fit, of "image", "table", "fused", "trees", "trees and
            image" ("trees on image" without a table; "trees and image and title" where there is a
            text "title" too, and a member "title"); None for all that there can be.
        num_folds: Int, folds, in place of those that `effort` means; 1 is one split.
        epochs: Int, passes of a network over its training rows; None for as many as make 240
            steps and 8 at least (of networks without an image 600 and 15). The best epoch's
            weights are kept.
        directory: Folder for finished fits: the same call goes on there after a kill. Each set of
            rows needs its own.
        random_state: Int: the same fit gives the same model. None is 0.
        verbose: 1 shows progress: which member, which fold, time left.

    Attributes:
        classes_: `(classes,)` labels.
        evidence_: `Comparison` of all members and the blend, out of fold.
        verdict_: One sentence: the blend against the best single input.
        weights_: Weight in the blend by member, on log-probabilities: 0 to 3, of any sum. It is
            that of rows which have all inputs; others are answered by blends of their own.
        model_: `keras.Model` of all of it, from the inputs' arrays by name.
        schema_: `TableSchema` that encodes the table and texts.
        results_: `CrossValidation` by member.
        member_inputs_: Names of the inputs that each member learned from, by member.
        image_columns_: Name of the table's column of images by input name, as far as known.
        target_: Name of the column that was predicted, or None.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(80, 3))
        >>> model = FusionClassifier(members=["trees"], num_folds=2)
        >>> model.fit(x, np.where(x[:, 0] > 0, "yes", "no")).predict([[2.0, 0, 0], [-2.0, 0, 0]])
        array(['yes', 'no'], dtype='<U3')
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        """`(rows, classes)` probabilities, columns in the order of `classes_`."""
        predictions = self._predict(X)
        probabilities = self.task_.probabilities(predictions)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """`(rows,)` labels."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _check_kind(self, data: FusionData) -> None:
        if data.kind == "regression":
            raise ValueError("`X` holds the values of a regression: fit a FusionRegressor.")

    def _targets_of(self, data: FusionData) -> np.ndarray:
        return np.array(data.class_names)[data.y]

    def _read_target(self, y: Any) -> tuple[np.ndarray, Task]:
        self.classes_, labels = read_labels(y)
        kind = "binary" if len(self.classes_) == 2 else "multiclass"
        names = [str(label) for label in self.classes_.tolist()]
        return labels, make_task(kind, y=labels, class_names=names)

    def _describe(self) -> dict[str, Any]:
        classes = {"classes": self.classes_.tolist(), "classes_dtype": self.classes_.dtype.str}
        return {**super()._describe(), **classes}

    def _restore(self, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.classes_ = np.array(about["classes"], about["classes_dtype"])
        super()._restore(about, arrays)


class FusionRegressor(RegressorMixin, _FusionEstimator):
    """Predicts values from rows of an image and a table by a blend of networks and trees.

    As `FusionClassifier`; the members' values are pooled linearly by weights of 0 or more.

    Args:
        image_column: As in `FusionClassifier`, like all others.
        image_folder: See there.
        text_columns: See there.
        image_shape: See there.
        image_backbone: See there.
        effort: See there.
        members: See there.
        num_folds: See there.
        epochs: See there.
        directory: See there.
        random_state: See there.
        verbose: See there.
    """

    def predict(self, X: Any) -> np.ndarray:
        """`(rows,)` values in the target's unit."""
        return self._predict(X)[:, 0]

    def _check_kind(self, data: FusionData) -> None:
        if data.kind != "regression":
            raise ValueError(
                "`X` holds classes, no values of a regression: fit a FusionClassifier."
            )

    def _targets_of(self, data: FusionData) -> np.ndarray:
        return data.y

    def _read_target(self, y: Any) -> tuple[np.ndarray, Task]:
        values = read_values(y)
        return values, make_task("regression", y=values)


def _with_rows(members: dict[str, Member], rows: Rows, folds: list[Fold]) -> dict[str, Member]:
    """The members that have rows with all of their inputs in each fold; warns of the others."""
    kept = {}
    for name, member in members.items():
        has_all = rows.having(member.modalities)
        if all(has_all[fold.train].any() and has_all[fold.test].any() for fold in folds):
            kept[name] = member
    left_out = [name for name in members if name not in kept]
    if left_out:
        warnings.warn(
            f"Left out, since too few rows have all of their inputs: {left_out}.", stacklevel=3
        )
    return kept


def _numbers(folds: list[Fold], num_rows: int) -> np.ndarray:
    """`(folds, rows)`: 1 where a fold judges a row."""
    marks = np.zeros((len(folds), num_rows), np.int8)
    for fold in folds:
        marks[fold.number, fold.test] = 1
    return marks


def _tuple(value: list | None) -> tuple | None:
    return None if value is None else tuple(value)
