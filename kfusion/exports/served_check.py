"""Run as a program, with TensorFlow alone: does an exported model answer as the Keras model did?

usage: python served_check.py MODEL_DIR SAMPLE.npz

Prints one line of JSON: the largest difference through each signature. It imports nothing of
kfusion, as a server would not.
"""

import json
import sys

import numpy as np
import tensorflow as tf


def main(model_dir: str, sample_path: str) -> None:
    with np.load(sample_path, allow_pickle=False) as sample:
        arrays = {name: sample[name] for name in sample.files}
    expected = arrays.pop("expected")
    loaded = tf.saved_model.load(model_dir)
    differences = {}
    for signature_name, signature in loaded.signatures.items():
        given = {
            name.split("/", 1)[1]: tf.constant(array)
            for name, array in arrays.items()
            if name.startswith(f"{signature_name}/")
        }
        answer = signature(**given)
        got = answer.get("probabilities", answer.get("prediction")).numpy()
        differences[signature_name] = float(np.max(np.abs(got - expected)))
    print(json.dumps(differences))


if __name__ == "__main__":
    main(*sys.argv[1:])
