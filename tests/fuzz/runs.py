"""A small valid run, named ways to spoil it, and a second reader of what it holds."""

import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data.dataset import Dataset
from mmctr.model.din import DIN
from mmctr.runs.run import Run
from mmctr.runs.writing import save_run
from mmctr.training.config import configs
from mmctr.training.metrics import evaluate
from tests.fuzz import datasets

CONFIG, SUMMARY, WEIGHTS = "config.json", "summary.json", "model.safetensors"
HISTORY, PREDICTIONS = "metrics.jsonl", "predictions.parquet"
HUGE = (2**31, 2**40, 2**62, 2**64, 10**30, -1, 0)
DTYPES = {"F32": np.float32, "I32": np.int32, "I8": np.int8, "I64": np.int64, "BOOL": np.bool_}
Files = dict[str, bytes]
MUTATIONS: dict[str, datasets.Mutation] = {}


@cache
def base() -> tuple[Dataset, Files]:
    """A dataset of a few items, and the files of a run on it."""
    place = Path(tempfile.mkdtemp())
    seed = next(seed for seed in range(99) if _serves(datasets.valid(np.random.default_rng(seed))))
    dataset = Dataset.load(datasets.write_dataset(place / "data", [], seed))
    model_config, training = configs(embedding_dim=2, heads=2, head_dim=2, hidden=(3,))
    embedding = dataset.catalog.provided_embedding("item_emb_d128")
    model = DIN.for_catalog(model_config, dataset.catalog, embedding)
    rows = dataset.valid
    probability = np.linspace(0.1, 0.9, len(rows), dtype=np.float32)
    metrics = evaluate(rows, probability)
    summary = {
        "metrics": metrics | {"auc_interval": [0.4, 0.6]},
        "reference_auc": {"popularity": 0.5},
        "seconds": {"fusion": 0.1, "training": 2.0},
    }
    names = ("epoch", "train_loss", "auc", "logloss", "learning_rate", "seconds")
    records = [dict.fromkeys(names, number / 4) for number in (1, 2, 3)]
    config = {
        "strategy": "provided:item_emb_d128",
        "model": model_config.model_dump(),
        "training": training.model_dump(),
        "sizes": model.sizes,
    }
    run = save_run(place / "runs", dataset, model, config, summary, records, probability)
    return dataset, {path.name: path.read_bytes() for path in run.folder.iterdir()}


def _serves(files: datasets.Files) -> bool:
    labels = [set(files[name]["label"].to_pylist()) for name in ("train", "valid")]
    return "item_info" in files and labels == [{0, 1}, {0, 1}]


def write_run(folder: Path, names: list[str], seed: int) -> Path:
    """Write the run of a case: sound with no names, else with these mutations in order."""
    rng, files = np.random.default_rng(seed), dict(base()[1])
    for name in names:
        MUTATIONS[name](rng, files)
    folder.mkdir()
    for name, content in files.items():
        if content == b"<folder>":
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
    return folder


def difference(run: Run) -> str:
    """What of a loaded run differs from its files, read by hand; empty if nothing does."""
    model = {name: value.numpy() for name, value in run.model().state_dict().items()}
    expected = tensors((run.folder / WEIGHTS).read_bytes())
    if model.keys() != expected.keys():
        return "other tensors"
    for name, value in model.items():
        if value.shape != expected[name].shape or not np.array_equal(value, expected[name]):
            return f"tensor {name}"
        if not np.isfinite(value).all():
            return f"tensor {name} is not finite"
    config = json.loads((run.folder / CONFIG).read_text(encoding="utf-8"))
    sizes, dim = config["sizes"], config["model"].get("embedding_dim", 32)
    if model["embedding.id.weight"].shape != (sizes["n_items"] + 1, dim):
        return "sizes"
    if (
        model["embedding.item_tags"].min() < 0
        or model["embedding.item_tags"].max() >= sizes["n_tags"]
    ):
        return "tags"
    read = ["user", "target", "label", "probability"]  # others may stand there, even twice
    columns = pq.read_table(run.folder / PREDICTIONS, columns=read)
    if len(columns) != len(base()[0].valid):
        return "predictions of other rows"
    for name in read:
        values = columns[name].to_pylist()
        if run.predictions[name].tolist() != values or None in values:
            return f"predictions, {name}"
    lines = (run.folder / HISTORY).read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line.strip()]
    for name in ("epoch", "train_loss", "auc", "logloss", "learning_rate", "seconds"):
        wanted = np.array([record[name] for record in records], dtype=np.float64)
        if not np.array_equal(run.history[name], wanted, equal_nan=True):
            return f"history, {name}"
    summary = json.loads((run.folder / SUMMARY).read_text(encoding="utf-8"))
    for name in ("auc", "logloss", "gauc"):
        value, found = summary["metrics"][name], run.summary["metrics"][name]
        if not isinstance(found, int | float) or not (found == value or np.isnan(found)):
            return f"summary, {name}"
    return ""


def tensors(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by the format's description."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    result = {}
    for name, facts in header.items():
        if name != "__metadata__":
            start, stop = (8 + length + offset for offset in facts["data_offsets"])
            array = np.frombuffer(content[start:stop], DTYPES[facts["dtype"]])
            result[name] = array.reshape(facts["shape"])
    return result


def packed(arrays: dict[str, np.ndarray], header: dict | None = None) -> bytes:
    """A safetensors file of arrays, whatever the header is to say instead of the truth."""
    names = {np.dtype(kind): name for name, kind in DTYPES.items()}
    names |= {np.dtype(np.float64): "F64", np.dtype(np.float16): "F16"}
    true, start = {}, 0
    for name, array in arrays.items():
        end = start + array.nbytes
        form = {"dtype": names[array.dtype], "shape": list(array.shape)}
        true[name] = form | {"data_offsets": [start, end]}
        start = end
    text = json.dumps(true if header is None else header | {}).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in arrays.values())


def mutation(mutate: datasets.Mutation) -> datasets.Mutation:
    """Register a mutation by its function's name."""
    MUTATIONS[mutate.__name__] = mutate
    return mutate


def _json(rng: np.random.Generator, files: Files) -> tuple[str, dict]:
    """One of the JSON files and its content, or an empty object if it was spoilt already."""
    name = str(rng.choice([CONFIG, SUMMARY]))
    try:
        value = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError):
        value = {}
    return name, value if isinstance(value, dict) else {}


def _place(rng: np.random.Generator, value: dict) -> tuple[dict, str] | None:
    """A random key somewhere in nested objects, as the object that holds it and the key."""
    places, todo = [], [value]
    while todo:
        part = todo.pop()
        places += [(part, key) for key in part]
        todo += [inner for inner in part.values() if isinstance(inner, dict)]
    return places[int(rng.integers(len(places)))] if places else None


@mutation
def json_key_gone(rng, files):
    name, value = _json(rng, files)
    if place := _place(rng, value):
        del place[0][place[1]]
    files[name] = json.dumps(value).encode()


@mutation
def json_other_value(rng, files):
    name, value = _json(rng, files)
    others = [None, [], {}, "", "7", 0, -1, 0.5, True, [1, 2], {"a": 1}, float("nan"), "é\n" * 99]
    if place := _place(rng, value):
        place[0][place[1]] = others[int(rng.integers(len(others)))]
    files[name] = json.dumps(value).encode()


@mutation
def json_huge_number(rng, files):
    name, value = _json(rng, files)
    for _ in range(20):
        place = _place(rng, value)
        if place and type(place[0][place[1]]) in (int, list):
            huge = int(HUGE[int(rng.integers(len(HUGE)))])
            old = place[0][place[1]]
            place[0][place[1]] = [huge] * len(old) if isinstance(old, list) else huge
            break
    files[name] = json.dumps(value).encode()


@mutation
def json_extra_key(rng, files):
    name, value = _json(rng, files)
    part = value.get(str(rng.choice([*value, "x"])))
    (part if isinstance(part, dict) else value)["unheard of"] = 1
    files[name] = json.dumps(value).encode()


@mutation
def json_text(rng, files):
    texts = [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe{}", b"[" * 100_000, b"9" * 5000]
    texts += [b'{"a": ' * 2000 + b"1" + b"}" * 2000, b"\xef\xbb\xbf{}", b"{}", b"\x00"]
    files[str(rng.choice([CONFIG, SUMMARY]))] = texts[int(rng.integers(len(texts)))]


def _arrays(files: Files) -> dict[str, np.ndarray]:
    none = {"embedding.item_tags": np.zeros((2, 2), np.int32)}
    try:
        return dict(tensors(files[WEIGHTS])) or none
    except Exception:
        return none


@mutation
def tensor_gone_or_more(rng, files):
    arrays = _arrays(files)
    name = str(rng.choice(list(arrays)))
    array = arrays.pop(name)
    arrays |= [{}, {f"{name}s": array}, {name: array, "more": array}][int(rng.integers(3))]
    files[WEIGHTS] = packed(arrays)


@mutation
def tensor_other_form(rng, files):
    arrays = _arrays(files)
    name = str(rng.choice(list(arrays)))
    array = arrays[name]
    forms = [
        lambda: array.T.copy(),
        lambda: array[:-1],
        lambda: np.concatenate([array, array]),
        lambda: array.astype(np.float64),
        lambda: array.astype(np.float16),
        lambda: array.astype(np.int64),
        lambda: array[None],
        lambda: array.ravel(),
        lambda: array[:0],
    ]
    with np.errstate(all="ignore"):
        arrays[name] = forms[int(rng.integers(len(forms)))]() if array.ndim else array[None]
    files[WEIGHTS] = packed(arrays)


@mutation
def tensor_other_values(rng, files):
    arrays = _arrays(files)
    name = str(rng.choice([*arrays, "embedding.item_tags", "embedding.item_levels"]))
    if name in arrays and arrays[name].size:
        array = arrays[name].copy()
        floating = array.dtype.kind == "f"
        value = rng.choice([np.nan, np.inf, 1e30]) if floating else rng.choice([-1, 100, 11, 1])
        array.flat[int(rng.integers(array.size))] = value
        arrays[name] = array
        files[WEIGHTS] = packed(arrays)


@mutation
def header_lies(rng, files):
    content = files.get(WEIGHTS, b"")
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        facts = header[str(rng.choice(list(header)))]
        lies = {
            "shape": [[2**40, 2], [2**40, 0], [2**63, 2**63], [-1], [], "x", [10**30]],
            "data_offsets": [[0, 2**40], [8, 4], [0, 4], [-8, 8], [2**63, 2**64], None],
            "dtype": ["F64", "BOOL", "X", "I8", None],
        }
        key = str(rng.choice(list(lies)))
        facts[key] = lies[key][int(rng.integers(len(lies[key])))]
        text = json.dumps(header).encode()
        files[WEIGHTS] = struct.pack("<Q", len(text)) + text + content[8 + length :]
    except Exception:
        files[WEIGHTS] = b"\xff" * 7 + b"\x7f" + b"{}"


@mutation
def header_length(rng, files):
    length = int(rng.choice([0, 1, 2**31, 2**40, 2**62]))
    files[WEIGHTS] = struct.pack("<Q", length) + files.get(WEIGHTS, b"")[8:]


@mutation
def predictions_table(rng, files):
    """Any mutation of a table, of the predictions."""
    name = str(rng.choice([name for name in sorted(datasets.TABLES) if name[:4] != "odd_"]))
    try:
        table = {"predictions": pq.read_table(pa.BufferReader(files[PREDICTIONS]))}
        datasets.TABLES[name](rng, table)
        files[PREDICTIONS] = datasets.encoded(table["predictions"], rng)
    except Exception:
        files.pop(PREDICTIONS, None)


@mutation
def history_lines(rng, files):
    text = files.get(HISTORY, b"")
    lines = text.split(b"\n")
    texts = [
        text[: len(text) // 2],
        b"\n".join(lines[1:]),
        b"\n" + text,
        b'{"epoch": 1}\n',
        b"[1, 2]\n",
        b"7\n",
        b"{}\n",
        text.replace(b"0.25", b"null"),
        text.replace(b"0.5", b'"x"'),
        text.replace(b"0.5", b"1e400"),
        text.replace(b"0.5", b"9" * 400),
        text.replace(b"0.5", b"[0.5]"),
        text.replace(b"0.5", b'"0.5"'),
        text.replace(b"0.5", b"true"),
        text.replace(b"auc", b"\xff"),
        text.replace(b"auc", b"logloss"),
        text.replace(b"0.5", b"NaN"),
        text.replace(b'{"epoch"', b'{"date":5,"epoch"'),
    ]
    files[HISTORY] = texts[int(rng.integers(len(texts)))]


@mutation
def any_bytes(rng, files):
    """Any mutation of bytes, of any file of the run."""
    spoil = datasets.BYTES[str(rng.choice(sorted(datasets.BYTES)))]
    if files:
        name = str(rng.choice(sorted(files)))
        part = {name: files[name]}
        spoil(rng, part)
        files[name] = part[name]


@mutation
def file_gone(rng, files):
    if files:
        del files[str(rng.choice(sorted(files)))]


@mutation
def files_swapped(rng, files):
    names = list(rng.permutation(sorted(files)))
    if len(names) > 1:
        files[names[0]], files[names[1]] = files[names[1]], files[names[0]]
