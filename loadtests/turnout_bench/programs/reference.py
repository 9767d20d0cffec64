"""In-process ONNX Runtime, the reference of what a server can give: runs a model in a plain loop, when asked.

Each line of standard input is a JSON object {"rows": R, "seconds": S}; the answer is one too.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime as ort

_RUNS_MIN = 5  # however short the time: one run that the machine holds up is then not the median


def main(file: str) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.disable_fallback()
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(3)
    print("ready: reference", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        inputs = {given.name: rng.random((question["rows"], *given.shape[1:]), dtype=np.float32)}
        session.run(names, inputs)
        took_ns: list[int] = []
        end_ns = time.perf_counter_ns() + int(question["seconds"] * 1e9)
        while len(took_ns) < _RUNS_MIN or time.perf_counter_ns() < end_ns:
            started_ns = time.perf_counter_ns()
            session.run(names, inputs)
            took_ns.append(time.perf_counter_ns() - started_ns)
        mean_ns, median_ns = float(np.mean(took_ns)), float(np.median(took_ns))
        answer = {
            "runs": len(took_ns),
            "mean_ns": mean_ns,
            "median_ns": median_ns,
            "p99_ns": float(np.percentile(took_ns, 99)),
            "per_second": question["rows"] / mean_ns * 1e9,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
