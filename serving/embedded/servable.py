"""One loaded version: its signatures, what they take, how they run, its warm-up."""

import math
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from serving.embedded import monitoring
from serving.embedded.monitoring import Monitoring
from serving.embedded.status import ServingError

DEFAULT_SIGNATURE = "serving_default"
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_WARMUP_RECORDS = 1000
_SERVE_TAG = "serve"
_RUNTIME_NAMES = {"float16": "half", "float32": "float", "float64": "double"}
"""Types that the runtime's texts call otherwise than Python does."""
_PYTHON_PREFIX = re.compile(r"Graph execution error:\n\n(?:Detected at node .*\n(?:<stack traces unavailable>\n|  .*\n)*)*")
_PYTHON_SUFFIX = re.compile(r" \[Op:\w+\](?: name: .*)?$")

Tensors = Mapping[str, npt.NDArray[Any]]


class Servable:
    """A version that answers."""

    def __init__(self, name: str, version: int, path: Path) -> None:
        """Load a SavedModel.

        Raises:
            ServingError: what keeps it from loading.
        """
        self.name = name
        self.version = version
        if path.is_file():
            # A file whose name is a number is a version too; the real server finds out when it asks how large it is.
            raise ServingError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Error while attempting to reserve resources to load servable {{name: {name} version: {version}}}: "
                f"{path}; Not a directory",
            )
        if not (path / "saved_model.pb").is_file():
            raise ServingError(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}. "
                "Check that the directory exists and that you have the right permissions for accessing it.",
            )
        try:
            self.signature_defs = _read_signatures(path)
            # The signatures live as long as the object they belong to.
            self._loaded = tf.saved_model.load(str(path))
        except (tf.errors.OpError, OSError, ValueError, KeyError, AttributeError, DecodeError) as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"{path}: {error}") from error

    def signature(self, name: str) -> tuple[str, meta_graph_pb2.SignatureDef]:
        """Resolved name and definition; an empty name is the default one.

        Raises:
            ServingError: FAILED_PRECONDITION, as Predict answers it.
        """
        resolved = name or DEFAULT_SIGNATURE
        if resolved not in self.signature_defs:
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{resolved}" not found.')
        return resolved, self.signature_defs[resolved]

    def run(self, signature: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """All outputs of a signature.

        Raises:
            ServingError: what the runtime says, with its code.
        """
        definition = self.signature_defs[signature]
        if signature not in self._loaded.signatures:
            # The SavedModel lists its initialiser among the signatures; nobody can run it.
            raise _invalid(f'Signature "{signature}" cannot be run')
        for index, alias in enumerate(sorted(inputs)):
            expected = runtime_name(definition.inputs[alias].dtype)
            given = runtime_name(inputs[alias].dtype)
            if given != expected:
                raise _invalid(f"Expects arg[{index}] to be {expected} but {given} is provided")
        try:
            tensors = {alias: tf.constant(value) for alias, value in inputs.items()}
            outputs = self._loaded.signatures[signature](**tensors)
            # A lone string comes as bytes; as an array of objects it keeps its trailing zeros.
            return {alias: np.asarray(value.numpy(), value.dtype.as_numpy_dtype) for alias, value in outputs.items()}
        except tf.errors.OpError as error:
            raise _from_runtime(error) from error
        except (TypeError, ValueError) as error:
            # Shapes that the traced function refuses before the runtime sees them.
            raise _invalid(str(error)) from error

    def warm_up(self, path: Path, metrics: Monitoring) -> None:
        """Replay the version's recorded requests, if it has any.

        Raises:
            ServingError: a record that cannot be read or that fails; the version must not become available.
        """
        file = path / WARMUP_FILE
        if not file.exists():
            return
        started = time.perf_counter()
        try:
            count = self._replay(tf.data.TFRecordDataset(str(file)).as_numpy_iterator(), file)
        except tf.errors.DataLossError as error:
            message = f"{error.message}. Please verify your warmup data is in TFRecord format."
            raise ServingError(grpc.StatusCode.DATA_LOSS, message) from error
        except tf.errors.OpError as error:
            raise _from_runtime(error) from error
        elapsed = (time.perf_counter() - started) * 1e6
        metrics.observe(monitoring.WARMUP_LATENCY, elapsed, model_path=str(path), status="OK")
        for _ in range(count):
            metrics.count(monitoring.WARMUP_RECORDS, model_path=str(path), status="OK")

    def _replay(self, records: Iterable[bytes], file: Path) -> int:
        count = 0
        for record in records:
            count += 1
            if count > MAX_WARMUP_RECORDS:
                message = f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {file}"
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                # As it stands, like the real server; text has to be text, though.
                message = f"Failed to parse warmup record: {record.decode(errors='replace')} from {file}"
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, message) from error
            kind = log.WhichOneof("log_type")
            if kind == "predict_log":
                request = log.predict_log.request
                name, definition = self.signature(request.model_spec.signature_name)
                self.run(name, read_inputs(request, definition))
            elif kind is not None:
                number = log.DESCRIPTOR.fields_by_name[kind].number
                raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
        return count


def _read_signatures(path: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        if _SERVE_TAG in graph.meta_info_def.tags:
            return dict(graph.signature_def)
    raise ValueError(f"no graph is tagged {_SERVE_TAG}")


def read_inputs(request: predict_pb2.PredictRequest, definition: meta_graph_pb2.SignatureDef) -> dict[str, npt.NDArray[Any]]:
    """Check the aliases of a request against a signature and parse its tensors.

    Raises:
        ServingError: INVALID_ARGUMENT with the real server's text.
    """
    given, wanted = sorted(request.inputs), sorted(definition.inputs)
    if len(given) != len(wanted):
        raise _invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({{{','.join(given)}}}) != "
            f"len({{{','.join(wanted)}}}). Sent extra: {{{','.join(sorted(set(given) - set(wanted)))}}}. "
            f"Missing but required: {{{','.join(sorted(set(wanted) - set(given)))}}}."
        )
    for alias in wanted:
        if alias not in request.inputs:
            raise _invalid(
                f"Signature input alias: {alias}(feed name: {definition.inputs[alias].name}) not found in request and no "
                f"default value provided. Inputs expected to be in the request {{{','.join(given)}}}, "
                "or default input alias set: "
            )
    return {alias: _parse(alias, request.inputs[alias]) for alias in wanted}


def _parse(alias: str, tensor: tensor_pb2.TensorProto) -> npt.NDArray[Any]:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    try:
        if tensor.dtype == types_pb2.DT_INVALID or min(shape, default=0) < 0:
            raise ValueError
        dtype = tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype
        if tensor.tensor_content:
            # Without a copy; TensorFlow's own parser takes ten times as long over a batch of pictures.
            return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
        _cut_values(tensor, math.prod(shape))
        return np.asarray(tf.make_ndarray(tensor))
    except (ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        # Types without an array, sizes without the memory for one.
        raise _invalid(f"tensor parsing error: {alias}") from error


def _cut_values(tensor: tensor_pb2.TensorProto, count: int) -> None:
    """Drop what the shape has no room for, as the real server does; TensorFlow's parser would refuse the tensor."""
    for field, values in tensor.ListFields():
        if field.name.endswith("complex_val"):
            del values[2 * count :]
        elif field.name.endswith("_val") and field.is_repeated:
            del values[count:]


def runtime_name(dtype: object) -> str:
    """What the runtime calls a type: `float`, not `float32`."""
    name: str = tf.dtypes.as_dtype(dtype).name
    return _RUNTIME_NAMES.get(name, name)


def _from_runtime(error: Any) -> ServingError:
    """The runtime's code and its text, without what TensorFlow for Python puts around it."""
    code = next(code for code in grpc.StatusCode if code.value[0] == error.error_code)
    return ServingError(code, _PYTHON_SUFFIX.sub("", _PYTHON_PREFIX.sub("", error.message)))


def _invalid(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
