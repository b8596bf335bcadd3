"""A folder that NVIDIA's Triton serves as it is: ``tritonserver --model-repository=OUT/triton``.

Triton keeps the states of each sequence (a client's ``sequence_id``) and batches what comes from several at a time. A
request is one block; the first one of a sequence sets ``sequence_start``, which is the graph's ``start``. Answers are
posteriors: the decoder stays with the client.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.core.atomic import write_text
from pipeline.model.file import GRAPH
from pipeline.model.onnx_model import OnnxModel

NAME = "rivulet"
MAX_BATCH = 64
IDLE_SECONDS = 60  # without a request after which a sequence is forgotten
TYPES = {"float": "FP32", "double": "FP64", "int64": "INT64", "int32": "INT32", "uint8": "UINT8", "bool": "BOOL"}


def write_triton(folder: Path) -> list[Path]:
    """Write ``triton/`` with the graph of ``folder`` and its configuration."""
    model = folder / "triton" / NAME
    (model / "1").mkdir(parents=True, exist_ok=True)
    write_text(model / "config.pbtxt", configuration(OnnxModel(folder / GRAPH)))
    return [model / "config.pbtxt", Path(shutil.copy(folder / GRAPH, model / "1" / GRAPH))]


def configuration(graph: OnnxModel) -> str:
    """``config.pbtxt``. Names of states are in one order at both ends, as Triton pairs them by that."""
    inputs = {one.name: array(one) for one in graph.session.get_inputs()}
    outputs = {one.name: array(one) for one in graph.session.get_outputs()}
    tracks = "".join(f'input {{ name: "{name}" {inputs[name]} }}\n' for name in graph.inputs[: -len(outputs)])
    pairs = zip(graph.inputs[-len(outputs) + 1 :], [*outputs][1:], strict=True) if len(outputs) > 1 else ()
    states = "".join(
        f'  state {{ input_name: "{before}" output_name: "{after}" {inputs[before]} }}\n' for before, after in pairs
    )
    return f"""name: "{NAME}"
backend: "onnxruntime"
max_batch_size: {MAX_BATCH}
{tracks}output {{ name: "posteriors" {outputs["posteriors"]} }}
sequence_batching {{
  max_sequence_idle_microseconds: {IDLE_SECONDS * 1_000_000}
  oldest {{ max_candidate_sequences: {16 * MAX_BATCH} max_queue_delay_microseconds: 5000 }}
  control_input {{
    name: "start"
    control {{ kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] }}
  }}
{states}}}
parameters {{ key: "labels" value {{ string_value: {json.dumps(json.dumps(graph.labels))} }} }}
"""


def array(one: Any) -> str:
    """Type and shape of an input or output, without the axis of rows."""
    return f"data_type: TYPE_{TYPES[one.type.removeprefix('tensor(').removesuffix(')')]} dims: {one.shape[1:]}"
