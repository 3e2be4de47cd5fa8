"""The released graph in one piece, with bfloat16 as float32: for what cannot take bfloat16.

Weights keep the values they were released with; what is computed between them is more exact.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from serving.contract import PREDICT_SIGNATURE


def load_float32(version: Path) -> tuple[graph_pb2.GraphDef, dict[str, str]]:
    """The graph behind the predict signature, and the tensor of each output."""
    loaded = tf.saved_model.load(str(version))
    signature = loaded.signatures[PREDICT_SIGNATURE]
    frozen = convert_variables_to_constants_v2(signature)
    graph = frozen.graph.as_graph_def()
    for node in graph.node:
        for attribute in node.attr.values():
            if attribute.type == types_pb2.DT_BFLOAT16:
                attribute.type = types_pb2.DT_FLOAT
            if attribute.tensor.dtype == types_pb2.DT_BFLOAT16:
                values = tf.make_ndarray(attribute.tensor).astype(np.float32)
                attribute.tensor.CopyFrom(tf.make_tensor_proto(values))
    names = sorted(signature.structured_outputs)
    return graph, dict(zip(names, (output.name for output in frozen.outputs), strict=True))
