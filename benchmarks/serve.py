"""`kfusion serve` under good and malformed requests: statuses, answers, latency, memory.

A server runs in a process of its own on loopback; this process asks it, on one connection, one
request after another: rows of the land-cover data with their image in base64, and requests that
are wrong in many ways. The server's memory is what the system says of its process (Linux).

usage: python benchmarks/serve.py [--good 10000] [--malformed 1000] [--epochs 1]
"""

from __future__ import annotations

import argparse
import base64
import collections
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

import kfusion as kf

PREDICT = "/v1/models/kfusion:predict"
ROWS = 200


def export_model(data: kf.FusionData, folder: Path, epochs: int) -> Path:
    train, held = data.split(0.2)
    branches = {
        "image": kf.image_branch(train.image_shape),
        "tabular": kf.tabular_branch(train.schema),
    }
    model = kf.build_fusion_model(branches, task=train.task)
    validation = (held.x, held.y)
    kf.fit(model, train.x, train.y, task=train.task, validation_data=validation, epochs=epochs)
    names = train.class_names
    return kf.export_saved_model(model, folder, schema=train.schema, class_names=names)


def good_requests(data: kf.FusionData) -> list[bytes]:
    """One row each."""
    requests = []
    rows = json.loads(data.frame.to_json(orient="records"))
    for row, pixels in zip(rows, data.images, strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        row["image"] = {"b64": base64.b64encode(file.getvalue()).decode()}
        requests.append(json.dumps({"instances": [row]}).encode())
    return requests


def malformed_requests(good: list[bytes], count: int, seed: int = 0) -> list[bytes]:
    """Good requests with other values, keys, types, lengths, cuts and bytes."""
    draw = random.Random(seed)
    wrong = [[], {}, [[1], [2, 3]], "abc", 1e300, 10**400, True, {"b64": "!"}, {"b64": "iVBORw0="}]
    requests = []
    while len(requests) < count:
        body = draw.choice(good)
        how = draw.randrange(6)
        if how == 0:
            body = body[: draw.randrange(len(body))]
        elif how == 1:
            request = json.loads(body)
            request["instances"][0][draw.choice(["image", "abs_lat"])] = draw.choice(wrong[:6])
            body = json.dumps(request).encode()
        elif how == 2:
            request = json.loads(body)
            request["instances"][0]["no such column"] = draw.choice(wrong)
            body = json.dumps(request).encode()
        elif how == 3:
            body = json.dumps({"instances": draw.choice([[], {}, "a", -1, None, [[]]])}).encode()
        elif how == 4:
            body = b"[" * draw.randrange(1, 100_000)
        else:
            request = json.loads(body)
            content = base64.b64decode(request["instances"][0]["image"]["b64"])
            content = content[: draw.randrange(len(content) // 2)]
            request["instances"][0]["image"]["b64"] = base64.b64encode(content).decode()
            body = json.dumps(request).encode()
        requests.append(body)
    return requests


def start_server(model: Path) -> tuple[subprocess.Popen, int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kfusion.cli", "serve", str(model), "--port", str(port)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **streams)
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return process, port
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("The server did not start.")


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", PREDICT, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def megabytes_of(process: subprocess.Popen) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--good", type=int, default=10_000)
    parser.add_argument("--malformed", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    data = kf.datasets.load_landcover()
    with tempfile.TemporaryDirectory() as scratch:
        model = export_model(data, Path(scratch) / "model", arguments.epochs)
        served = data[np.linspace(0, len(data) - 1, ROWS).astype(int)]
        exported = kf.load_exported(model)
        expected = [
            exported.predict(served.frame[i : i + 1], served.images[i : i + 1])["probabilities"][0]
            for i in range(ROWS)
        ]
        requests = good_requests(served)
        process, port = start_server(model)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for body in requests:
            ask(connection, body)
        before = megabytes_of(process)
        seconds, unequal = [], 0
        statuses: collections.Counter = collections.Counter()
        for number in range(arguments.good):
            started = time.perf_counter()
            status, answer = ask(connection, requests[number % ROWS])
            seconds.append(time.perf_counter() - started)
            statuses[status] += 1
            found = np.float32(json.loads(answer)["predictions"][0]["probabilities"])
            unequal += not np.array_equal(found, expected[number % ROWS])
        between = megabytes_of(process)
        refused = collections.Counter(
            ask(connection, body)[0] for body in malformed_requests(requests, arguments.malformed)
        )
        after = megabytes_of(process)
        connection.close()
        process.send_signal(signal.SIGINT)
        process.wait(30)
    result = {
        "benchmark": "serve",
        "good_statuses": dict(statuses),
        "answers_that_differ_from_the_saved_model": unequal,
        "median_ms": round(1000 * float(np.median(seconds)), 2),
        "percentile_99_ms": round(1000 * float(np.quantile(seconds, 0.99)), 2),
        "malformed_statuses": dict(refused),
        "megabytes_before_good_malformed": [round(m, 1) for m in (before, between, after)],
        "exit_code": process.returncode,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
