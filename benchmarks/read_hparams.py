"""Reads a search's log folder as TensorBoard's HParams tab does: values and last scores by run.

usage: python benchmarks/read_hparams.py image_and_edges/logs
"""

from __future__ import annotations

import argparse
import json

from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    events = EventMultiplexer().AddRunsFromDirectory(parser.parse_args().folder)
    events.Reload()
    for run, kinds in sorted(events.Runs().items()):
        read = events.GetAccumulator(run)
        content = read.PluginTagToContent("hparams")
        start = HParamsPluginData.FromString(content["_hparams_/session_start_info"])
        values = start.session_start_info.hparams
        hparams = {name: getattr(each, each.WhichOneof("kind")) for name, each in values.items()}
        last = {
            tag: round(float(tensor_util.make_ndarray(read.Tensors(tag)[-1].tensor_proto)), 4)
            for tag in kinds["tensors"]
            if not tag.startswith("_hparams_")
        }
        print(json.dumps({"run": run, "hparams": hparams, "last": last}))


if __name__ == "__main__":
    main()
