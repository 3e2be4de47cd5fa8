"""`python -m scripts.bench.onnx_model VERSION FILE`: the released graph as ONNX, in float32. Runs beside the engines.

ONNX Runtime computes no bfloat16 convolutions on a CPU, so they are widened; nothing else is changed or left out.
"""

import sys
from pathlib import Path

import onnx
import tf2onnx

from scripts.bench.graph import load_float32
from serving.contract import IMAGES_INPUT

OPSET = 18


def main(version: Path, path: Path) -> None:
    """Convert, and give the outputs the contract's names."""
    graph, outputs = load_float32(version)
    tensors = list(outputs.values())
    model, _ = tf2onnx.convert.from_graph_def(graph, input_names=[f"{IMAGES_INPUT}:0"], output_names=tensors, opset=OPSET)
    named = {tensor: name for name, tensor in outputs.items()} | {f"{IMAGES_INPUT}:0": IMAGES_INPUT}
    for node in model.graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
        node.output[:] = [named.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = named[value.name]
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
