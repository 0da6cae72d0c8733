"""A run's scorer as ONNX, for serving without Python, beside the vectors of its items."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

import mmctr
from mmctr.data.dataset import Dataset
from mmctr.data.fields import as_json
from mmctr.errors import ConfigError, RunError, first_line
from mmctr.files import atomic_folder, write_json
from mmctr.model.din import DIN
from mmctr.runs.run import Run
from mmctr.training.prediction import Scorer

if TYPE_CHECKING:
    from onnx import ModelProto
SCORER, ITEMS, ABOUT = "scorer.onnx", "items.parquet", "scorer.json"
CLOSE = 1e-5  # of a probability: as far as another runtime may round otherwise
EXAMPLE = 3, 4  # candidates and clicks, from which the graph is traced


class Exported(NamedTuple):
    """What was written: by folder, items and the width of their vectors, and the largest
    difference of a probability from PyTorch's; None if there is no onnxruntime to tell it."""

    folder: Path
    items: int
    width: int
    difference: float | None


def export_onnx(run: Run, dataset: Dataset, out: Path) -> Exported:
    """Write a run's scorer of the candidates for one user, and its items, whole or not at all.

    scorer.onnx has the inputs candidates, float32 [n, width], history, float32 [clicks, width], the
    latest last, and if the model reads fields of users or of the context fields, int64 [fields],
    their codes; its output is probability, float32 [n], corrected for the run's click rate, if one
    is known. n and clicks may be 0; of the clicks the latest max_history are read.
    items.parquet: a row an item, item_id (own ids, text) and vector. scorer.json: what serves it,
    max_history, and the vocabularies that give the codes, as `Field.codes` does.

    Items come in as vectors, not as numbers of a table within the graph: the graph stays small
    however many items there are, vectors live where a service keeps its features, and items that
    come later are rows more (of another export of the run), while the graph stays as it is.

    dataset: read by Dataset.load(folder, run.fields). The files are checked with onnxruntime, where
    that is installed, before they appear. Raises ConfigError for a folder that exists or a missing
    package, RunError for data that the run cannot serve, a model with a part that ONNX cannot have,
    and an export that differs from PyTorch.
    """
    onnx = import_onnx()
    if out.exists():
        raise ConfigError(f"{out} exists already: delete it or choose another folder with --out.")
    model, catalog = run.adapted(dataset)[0], dataset.catalog
    _require_parts(model, run)
    scorer = Scorer(model, "float32")
    vectors = scorer.vectors[1:].numpy()
    graph = _graph(model, run)
    graph.doc_string = f"Click probabilities of candidates for one user, of the run {run.name}."
    fields = [field for field in dataset.row_fields if _reads_fields(model)]
    about = {
        "run": run.name,
        "weights_sha256": run.weights_hash(),
        "mmctr": mmctr.__version__,
        "fingerprint": dataset.fingerprint,
        "width": vectors.shape[1],
        "max_history": model.config.max_history,
        "fields": as_json(fields),
    }
    with atomic_folder(out) as temporary:
        onnx.save_model(graph, temporary / SCORER)
        flat = pa.array(vectors.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        ids = pa.array(catalog.ids[1:], pa.string())
        items = pa.table({"item_id": ids, "vector": column})
        pq.write_table(items, temporary / ITEMS, compression="zstd")
        write_json(temporary / ABOUT, about)
        difference = _difference(temporary, run, scorer)
        if difference is not None and not difference <= CLOSE:
            raise RunError(
                f"The export of {run.folder} differs from PyTorch by {difference:.2g}, expected at "
                f"most {CLOSE:g}, and was not written: try another version of onnxruntime."
            )
    return Exported(out, len(vectors), vectors.shape[1], difference)


def import_onnx() -> Any:
    """The package onnx; ConfigError unless it and what PyTorch needs beside it are there."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(
            "mmctr export --onnx needs the extra onnx, which is not installed: run python -m pip "
            "install 'onnx>=1.23' 'onnxscript>=0.7' 'onnxruntime>=1.32' in the environment of "
            "mmctr."
        ) from None
    return onnx


class _OneUser(nn.Module):
    """What the graph computes once its history has a row."""

    def __init__(self, model: DIN, shift: float) -> None:
        super().__init__()
        self.model, self.shift = model, shift
        sizes = [*model.field_sizes.get("user", ()), *model.field_sizes.get("context", ())]
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.int64), persistent=False)

    def forward(self, candidates: Tensor, history: Tensor, fields: Tensor | None = None) -> Tensor:
        attention, width = self.model.attention, self.model.history_width
        targets = attention.as_targets(candidates[:, :width])
        interest = attention.of_one_history(targets, attention.as_clicks(history[:, :width]))
        known = [candidates, interest]
        if fields is not None:
            # The graph cannot refuse codes that do not exist: they are unknown.
            wrong = (fields < 0) | (fields >= self.sizes)
            for embed, codes in self.model.row_fields(fields.masked_fill(wrong, 0)[None]).values():
                own = sum(embed.one(codes, category) for category in range(codes.shape[1]))
                known.append(own.expand(len(candidates), -1))
        return (self.model.score(torch.cat(known, dim=1)) + self.shift).sigmoid()


def _graph(model: DIN, run: Run) -> "ModelProto":
    """The whole graph: of the history that it reads, then of the probabilities."""
    import onnx
    from torch.export import Dim

    n, clicks = EXAMPLE[0], min(EXAMPLE[1], model.config.max_history)
    width = sum(model.embedding.widths.values())
    inputs = {"candidates": torch.zeros(n, width), "history": torch.zeros(clicks, width)}
    # A model of one click has no other history than one of one row.
    shapes: dict[str, Any] = {"candidates": {0: Dim.DYNAMIC}}
    shapes["history"] = {0: Dim.DYNAMIC} if clicks > 1 else None
    scorer = _OneUser(model, _shift(run)).eval()
    if _reads_fields(model):
        inputs["fields"] = torch.zeros(len(scorer.sizes), dtype=torch.int64)
        shapes["fields"] = None
    names = {"input_names": ["candidates", "read", *[*inputs][2:]]}
    names["output_names"] = ["probability"]
    options = {"dynamic_shapes": shapes, "dynamo": True, "verbose": False}
    try:
        with torch.no_grad():
            program = torch.onnx.export(scorer, (), kwargs=inputs, **names, **options)
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise RunError(
            f"{run.folder} cannot be exported, PyTorch finds no ONNX for its model ({reason}): "
            "choose a run of another preset."
        ) from error
    probability = program.model_proto
    for node in probability.graph.node:
        del node.metadata_props[:]  # which name lines of files of this machine
    del probability.graph.value_info[:]
    for end in (probability.graph.input[0], probability.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "candidates"
    reading = _reading(model.config.max_history, width, probability)
    return onnx.compose.merge_models(reading, probability, io_map=[("read", "read")])


def _reading(max_history: int, width: int, like: "ModelProto") -> "ModelProto":
    """A graph of the clicks that are read: the latest, or of an empty history a row of zeros.

    To every attention that can be exported a click of zeros says what no click says. Runtimes
    differ on a softmax and a product over nothing. PyTorch traces lengths as if they were at least
    2, so that this part, which depends on whether there are any clicks, is not traced.
    """
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: np.ndarray) -> Any:
        return numpy_helper.from_array(value, name)

    def whole(name: str, value: int) -> Any:
        return constant(name, np.array([value], dtype=np.int64))

    nodes = [
        helper.make_node("Concat", ["nothing", "history"], ["padded"], axis=0),
        helper.make_node("Shape", ["history"], ["clicks"], start=0, end=1),
        helper.make_node("Sub", ["clicks", "passed over"], ["after"]),
        helper.make_node("Max", ["after", "first"], ["from click"]),
        helper.make_node("Min", ["from click", "clicks"], ["start"]),
        helper.make_node("Slice", ["padded", "start", "end", "axis"], ["read"]),
    ]
    constants = [
        constant("nothing", np.zeros((1, width), dtype=np.float32)),
        whole("passed over", max_history - 1),
        whole("first", 1),
        whole("end", np.iinfo(np.int64).max),
        whole("axis", 0),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width])
        for name, rows in (("history", "clicks"), ("read", "clicks read"))
    ]
    graph = helper.make_graph(nodes, "scorer", ends[:1], ends[1:], constants)
    opsets = {"opset_imports": like.opset_import, "ir_version": like.ir_version}
    return helper.make_model(graph, **opsets)


def _reads_fields(model: DIN) -> bool:
    return model.user_fields is not None or model.context is not None


def _shift(run: Run) -> float:
    """What is added to logits so that probabilities are as `Run.corrected` has them."""
    half = np.array([0.5])
    corrected = float(run.corrected(half)[0])
    return float(np.log(corrected / (1 - corrected)))


def _require_parts(model: DIN, run: Run) -> None:
    """Raise RunError for a part that is computed by what ONNX does not have."""
    config = model.config
    parts = {
        "similarity": model.similarity is not None,
        "cross_attention": config.cross_attention > 0,
        "inverted_mask": config.attention == "transformer" and config.inverted_mask,
    }
    for name, there in parts.items():
        if there:
            raise RunError(
                f"{run.folder} cannot be exported, because a part of its model, {name}, is "
                "computed by what ONNX does not have: choose a run without it."
            )


def _difference(folder: Path, run: Run, scorer: Scorer) -> float | None:
    """The largest difference of the files' probabilities from PyTorch's, None if not checked.

    Over histories that are empty, short, as long as is read, and longer.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    cpu = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(folder / SCORER, options, providers=cpu)
    items = pq.read_table(folder / ITEMS, columns=["vector"])["vector"].combine_chunks()
    vectors = items.flatten().to_numpy().reshape(len(items), -1)
    sizes = scorer.model.field_sizes
    sizes = [*sizes.get("user", ()), *sizes.get("context", ())]
    rng, longest, gaps = np.random.default_rng(0), scorer.model.config.max_history, []
    for clicks in (0, 1, 2, longest, longest + 1):
        history, candidates = (rng.integers(len(vectors), size=size) for size in (clicks, 100))
        codes = rng.integers(sizes) if sizes else np.zeros(0, dtype=np.int64)
        feed = {"candidates": vectors[candidates], "history": vectors[history], "fields": codes}
        feed = {one.name: feed[one.name] for one in session.get_inputs()}
        expected = run.corrected(scorer(history + 1, candidates + 1, codes))
        gaps.append(np.abs(session.run(None, feed)[0] - expected).max())
    return float(np.max(gaps))  # NaN if one of them is
