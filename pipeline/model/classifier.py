"""The classifier: extractor, normalisation, encoder, head and smoothing as one Chain, and its file on disk.

A model is one ``model.safetensors``: the weights, and a JSON header with the settings of every component, the labels
and the decoder. Loading builds components through ``build`` and copies numbers: nothing in a file is ever run.
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.core.atomic import atomic_write
from pipeline.core.build import build
from pipeline.core.errors import ConfigError, ModelError, NotFiniteError
from pipeline.core.moved import with_new_names
from pipeline.decoders.decoder import Decoder
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.voice_gate import VoiceGate
from pipeline.layers.precision import Precision, lower
from pipeline.layers.stage import Chain, Stage, State, leaves, tree
from pipeline.layers.standardize import Standardize
from pipeline.layers.tracks import Tensors, to_tensors
from pipeline.media.input_spec import Arrays
from pipeline.model.file import (
    DEFAULTS,
    FORMAT,
    HEADER,
    MAX_HEADER_BYTES,
    PARTS,
    ModelHeader,
    Promise,
    identify,
    model_file,
    without_window,
)  # fmt: skip
from pipeline.model.golden import Golden, check_golden, offline, pop_golden, stage_sizes
from pipeline.model.golden_clip import clip, duration, library_versions
from pipeline.model.stream_model import MAX_STATE_BYTES, Bound, Memory
from pipeline.tasks.task import Task

GRAINS = 8  # steps of the slower track that a chunk may need at most


class Classifier(Chain):
    """Samples ``(B, T*hop)``, pictures ``(B, T*hop, 3, H, W)``, or both, to class posteriors ``(B, T, K)``.

    ``spec`` says which of them; ``hop`` is in ticks of its clock, of which there are ``rate`` a second. With a gate,
    the model for streams gives labels that make events 0 where it is closed (``gated``); its state comes last.
    """

    extractor: Extractor
    standardize: Standardize
    encoder: Stage
    head: Any
    smoothing: Stage
    task: Task[Any]
    quiet: Tensor
    gated = False
    precision: Precision = "fp32"
    golden: Golden | None = None  # its answers on streams when it was saved
    promise: Promise | None = None  # what its own thresholds bring

    def __init__(self, config: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> None:
        """Build and wire the parts: each learns from the one before what shape it receives.

        Raises ConfigError (a setting is wrong) or ValueError (settings do not go together).
        """
        config = DEFAULTS | dict(config)
        task: Task[Any] = build(config["task"], Task, at="task")
        extractor: Extractor = build(config["extractor"], Extractor, at="extractor")
        spec = extractor.spec
        settings = dict(config["encoder"]) | {"cell": config["cell"]}
        encoder: Stage = build(settings, Stage, at="encoder", shape=extractor.out_shape)
        step = extractor.hop * encoder.hop / spec.rate
        labels = task.name_columns(labels, extractor)
        head = build(config["head"], Chain, at="head", shape=encoder.out_shape, classes=len(labels), step=step)
        link = {} if task.link == "softmax" else {"link": task.link}
        smoothing: Stage = build(config["smoothing"], Stage, at="smoothing", shape=head.out_shape, step=step, **link)
        super().__init__(
            extractor=extractor,
            standardize=Standardize(extractor.out_shape),
            encoder=encoder,
            head=head,
            smoothing=smoothing,
        )
        self.task, task.link_stage = task, smoothing
        self.config = {name: dict(config[name]) for name in PARTS}
        self.config["extractor"] = extractor.recorded(self.config["extractor"])
        self.labels, self.spec, self.rate = list(labels), spec, spec.rate
        self.grain = math.lcm(spec.grain, self.hop)  # ticks of the smallest chunk
        if self.grain > GRAINS * max(spec.grain, self.hop):
            raise ValueError(
                f"encoder: a step of {self.hop} samples and a picture of {spec.grain} have no short common multiple; "
                "change the strides of encoder.convolutions"
            )
        decoder = self.decoder()  # refuses a wrong setting before the training
        if decoder.reads != task.reads:
            wanted = {"events": "hysteresis", "numbers": "limits", "strings": "transcript"}[task.reads]
            raise ConfigError(f"decoder: reads {decoder.reads}, but the task tells {task.reads}; set decoder={wanted}")
        never = np.isinf(decoder.high)
        self.register_buffer("quiet", torch.from_numpy(never.astype(np.float32)), persistent=False)
        if config["gate"] and not spec.sound:
            raise ConfigError(f"gate: hears voices, but this model takes {spec.what} alone; set gate=none")
        gate = config["gate"]
        self.gate = build(gate, VoiceGate, at="gate", rate=self.rate, hop=self.hop) if gate else None

    def initial(self, batch: int) -> State:
        """One state per stage, and the gate's."""
        state = super().initial(batch)
        return (*state, self.gate.initial(batch)) if self.gated and self.gate else state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Through every stage in turn, and through the gate."""
        if not self.gated or self.gate is None:
            return super().forward(x, state)
        y, after = super().forward(x, state[:-1])
        voice, heard = self.gate(x[0] if isinstance(x, tuple) else x, state[-1])
        return y * torch.maximum(voice, self.quiet), (*after, heard)

    def fetch(self) -> None:
        """Read the weights of others that extractors begin with. ConfigError if they are missing."""
        for part in self.modules():
            if isinstance(part, Extractor):
                part.fetch()

    def extract(self, x: Tensors) -> list[Tensor]:
        """Features of each track of whole clips, before normalisation."""
        tracks = x if isinstance(x, tuple) else (x,)
        return [
            front(track, front.initial(len(track)))[0] for (front, _), track in zip(self.fronts(), tracks, strict=False)
        ]

    def encoder_input(self, features: list[Tensor], present: Tensor | None = None) -> Tensor:
        """Features of each track, with ``present (B, T, 2)`` if there are two, joined and normalised."""
        y, _ = self.standardize(self.extractor.join(features, present), ())
        return y

    def logits(self, x: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """For training, on features of whole clips: logits ``(B, T, K)`` of each step, the same pooled over time, and
        the state in which the encoder ends. ``state`` is the encoder's at the start (None: the initial one).
        """
        x, state = self.encoder(x, self.encoder.initial(len(x)) if state is None else state)
        linear, pool = self.head.stages
        x, _ = linear(x, linear.initial(len(x)))
        pooled, _ = pool(x, pool.initial(len(x)))
        return x, pooled, state

    def posteriors(self, features: Tensor) -> Tensor:
        """Posteriors ``(B, T, K)`` from standardised features of whole clips: the rest of the chain."""
        return self.pooled(self.encode(features))

    def encode(self, features: Tensor) -> Tensor:
        """What the encoder makes ``(B, T, F)`` of whole clips."""
        hidden, _ = self.encoder(features, self.encoder.initial(len(features)))
        return hidden

    def pooled(self, hidden: Tensor) -> Tensor:
        """Posteriors ``(B, T, K)`` from what the encoder makes."""
        for stage in (self.head, self.smoothing):
            hidden, _ = stage(hidden, stage.initial(len(hidden)))
        return hidden

    def grain_of(self, track: int) -> int:
        """Ticks per step of a track: a picture's period for the second of two."""
        return self.spec.grain if track else 1

    def fronts(self) -> list[tuple[Extractor, Standardize]]:
        """The extractor of each track, with its normalisation."""
        return [(front, own or self.standardize) for front, own in self.extractor.fronts()]

    def with_window(self, seconds: float | None, gated: bool = False) -> "Classifier":
        """The same weights with another pooling window (None: since the start), and ``gated`` if there is a gate."""
        other = self.with_parts(head=dict(self.config["head"]) | {"window": seconds})
        other.gated = gated and other.gate is not None
        return other

    def with_gate(self, gate: Mapping[str, Any]) -> "Classifier":
        """The same weights with another gate ({}: none); one that was not there reads its own from its package."""
        other = self.with_parts(gate=dict(gate))
        if other.gate and not self.gate:
            other.gate.voice.fetch()
        return other

    def with_parts(self, **parts: Any) -> "Classifier":
        """The same weights with other settings of some parts."""
        other = Classifier(self.config | parts, self.labels)
        other.load_state_dict(self.state_dict(), strict=False)  # a gate may come or go
        other.golden, other.promise = self.golden, None if "gate" in parts else self.promise
        return other.to(self.anchor.device).train(self.training).with_precision(self.precision)

    def with_precision(self, precision: Precision) -> "Classifier":
        """The same model, for inference only. ``bf16``: its convolutions over pictures compute in bfloat16, with
        weights rounded once; memories, everything else and the posteriors stay float32. ValueError for the way back.
        """
        if precision == self.precision:
            return self
        if precision == "fp32":
            raise ValueError("precision: the weights were rounded to bf16; load the model again for fp32")
        other = copy.deepcopy(self)
        other.precision = precision
        lower(other)
        return other

    def for_streaming(self) -> "Classifier":
        """The model for streams: its head pools the last ``head.live`` seconds, and its gate may be closed."""
        return self.with_window(self.config["head"].get("live"), gated=True)

    def clip_posteriors(self, x: Tensor | tuple[Tensor, ...], lengths: Tensor) -> Tensor:
        """Posteriors ``(B, K)`` of each clip of a right-padded batch, at its own last step.

        ``x``: samples ``(B, N)``, pictures ``(B, T, H, W, 3)``, or the tuple of all tracks; ``lengths (B,)`` in ticks.
        """
        whole = on_device(self.pad(x if isinstance(x, tuple) else (x,), int(lengths.max())), self)
        y, _ = self(whole, self.initial(len(lengths)))
        answer: Tensor = y[torch.arange(len(y)), self.last_step(lengths)]
        return answer

    def pad(self, x: Sequence[Any], longest: int) -> Tensors:
        """Clips as one batch, padded to whole steps that hold ``longest`` ticks and the delay."""
        ticks = longest + self.delay * self.hop
        return to_tensors(self.spec, x, ticks + -ticks % self.grain)

    def last_step(self, lengths: Tensor) -> Tensor:
        """Index of the last output step of clips of ``lengths`` ticks."""
        return (lengths + self.hop - 1).div(self.hop, rounding_mode="floor").clamp(min=1) - 1 + self.delay

    @cached_property
    def like(self) -> State:
        """A state, for its nesting alone."""
        return self.initial(1)

    @property
    def link(self) -> str:
        """``softmax``, ``sigmoid`` or ``linear``."""
        return self.task.link

    @property
    def unit(self) -> int:
        """It computes any block."""
        return self.grain

    @property
    def engine(self) -> dict[str, str]:
        """What computes it, and where."""
        return {"device": self.anchor.device.type, "precision": self.precision}

    def begin(self, rows: int) -> Memory:
        """See ``StreamModel``."""
        return tuple(plain(leaf.detach().contiguous().clone()) for leaf in leaves(self.initial(rows)))

    def bound(self, rows: int, ticks: int) -> Bound:
        """See ``StreamModel``."""
        return Bound(self, rows, ticks)

    @torch.inference_mode()
    def advance(self, block: Arrays, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """See ``StreamModel``."""
        flat = (torch.as_tensor(part, device=self.anchor.device) for part in memory)
        try:
            y, state = self(
                on_device(to_tensors(self.spec, block), self),
                nested(self.like, flat),
            )
        except NotFiniteError:  # of a cell, which does not say in which row
            steps = self.spec.ticks(tuple(part[0] for part in block)) // self.hop
            return np.full((len(block[0]), steps, len(self.labels)), np.nan, np.float32), memory
        return y.float().cpu().numpy(), tuple(plain(leaf.contiguous()) for leaf in leaves(state))

    def check_golden(self, parts: Arrays, found: NDArray[np.float32]) -> None:
        """See ``golden.py``."""
        check_golden(self, on_device(self.pad(self.spec.stack([parts]), self.spec.ticks(parts)), self), found)

    def check_block(self, ticks: int) -> None:
        """ConfigError if it is not causal: then it has no blocks."""
        if not self.causal:
            blind = next((name for name in self.names if not self.get_submodule(name).causal), "model")
            raise ConfigError(f"{blind}: looks into the future (causal = False) and cannot be streamed; choose another")

    def identity(self, window: bool = True) -> str:
        """A short hash of settings and weights; without ``window``, the same for any window of the head. Computed again
        only when a weight has changed: it takes a thousand times as long as to look for that.
        """
        tensors = [*self.parameters(), *self.buffers()]
        now = window, *(n for t in tensors for n in (t.data_ptr(), 0 if t.is_inference() else t._version))
        known: dict[Any, str] = self.__dict__.setdefault("identities", {})
        if now not in known:
            config = self.config if window else without_window(self.config)
            weights = [(name, tensor_bytes(tensor)) for name, tensor in self.state_dict().items()]
            known[now] = identify(config, self.labels, weights)
        return known[now]

    def decoder(self, **settings: Any) -> Decoder:
        """A new decoder with the model's settings, changed by ``settings``."""
        config = dict(self.config["decoder"]) | settings
        return build(config, Decoder, at="decoder", labels=self.labels, hop=self.hop, rate=self.rate)

    def parameter_count(self) -> int:
        """Trainable numbers."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def save(self, path: Path, trained: Mapping[str, Any] | None = None) -> None:
        """Write the model to one file, whole or not at all, with its answers to the golden clip."""
        golden = self.golden_answers()
        header = ModelHeader(format=FORMAT, labels=self.labels, config=self.config, trained=dict(trained or {}))
        header.promise = self.promise
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        if golden:
            header.versions = golden.versions
            weights |= golden.tensors()
        with atomic_write(path) as file:
            file.write(save(weights, {HEADER: header.model_dump_json()}))

    def golden_answers(self) -> Golden | None:
        """The answers of the model for streams, without its gate, which the golden clip does not open, on this
        processor; None if they are not finite.
        """
        with torch.random.fork_rng(devices=[]):  # a model is built: a training's random numbers stay the same
            model = self.with_window(self.config["head"].get("live")).cpu().eval()
        parts = clip(self.spec, self.grain)
        ticks = self.spec.ticks(parts)
        x = model.pad(self.spec.stack([parts]), ticks)
        found = Golden(offline(model, x)[: -(-ticks // self.hop)], stage_sizes(model, x), library_versions())
        return found if np.isfinite(found.posteriors).all() and np.isfinite(found.sizes).all() else None

    def golden_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the golden answers: posteriors, and a size for each stage."""
        return (-(-duration(self.spec, self.grain) // self.hop), len(self.labels)), (len(self.names),)


def load(path: str | Path, device: str = "cpu") -> Classifier:
    """A model from its file, or its run's folder, ready to answer (eval mode). ModelError says what is wrong."""
    path = model_file(path)
    try:
        with open(path, "rb") as raw:
            if (size := int.from_bytes(raw.read(8), "little")) > MAX_HEADER_BYTES:
                raise SafetensorError(f"a header of {size:,} bytes; expected at most {MAX_HEADER_BYTES:,}")
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise ModelError(f"checkpoint={path}: no such file; train one with `python train.py`") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"checkpoint={path}: not a whole model.safetensors ({error}); "
            + ("last.ckpt is for resuming a training" if path.suffix == ".ckpt" else "copy or train it again")
        ) from None
    if header is None:
        raise ModelError(f"checkpoint={path}: a safetensors file, but not a Rivulet model (no {HEADER!r} header)")
    try:
        model = rebuild(header, weights)
    except Exception as error:  # whatever a hostile header brings about
        raise ModelError(f"checkpoint={path}: refused: {str(error) or type(error).__name__:.1000}") from error
    return model.to(device).eval()


def rebuild(header: str, weights: dict[str, Tensor]) -> Classifier:
    """The model that a header describes, with the weights of its file, golden answers among them.

    All shapes are compared before memory is taken. ModelError, ConfigError or ValueError for what does not fit; other
    errors are possible.
    """
    stored = ModelHeader.model_validate_json(header)
    if stored.format != FORMAT:
        raise ModelError(f"format {stored.format}; this version reads format {FORMAT}")
    if missing := set(PARTS) - DEFAULTS.keys() - stored.config.keys():
        raise ModelError(f"the header lacks {', '.join(sorted(missing))}")
    config = with_new_names(stored.config)
    json.dumps(config, allow_nan=False)
    with torch.device("meta"):  # shapes only
        described = Classifier(config, stored.labels)
        state = described.initial(1), described.for_streaming().initial(1)
    if (size := sum(tensor.nbytes for tensor in leaves(state))) > MAX_STATE_BYTES:
        raise ModelError(f"a stream would take {size:,} bytes; expected at most {MAX_STATE_BYTES:,}")
    golden = pop_golden(weights, stored.versions, described.golden_shapes())
    shapes = {name: tensor.shape for name, tensor in described.state_dict().items()}
    if shapes.keys() != weights.keys():
        raise ModelError("the weights do not belong to the model that the header describes")
    for name, shape in shapes.items():
        if shape != weights[name].shape:
            raise ModelError(f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(shape)}")
    model = Classifier(config, stored.labels)
    model.load_state_dict(weights)
    model.golden, model.promise = golden, stored.promise
    return model


def on_device(x: Tensors, model: Classifier) -> Tensors:
    """A batch on the model's device."""
    return tree(lambda track: track.to(model.anchor.device), x)


def plain(tensor: Tensor) -> Any:
    """The array of a tensor on the processor; on another device, the tensor."""
    return tensor.numpy() if tensor.is_cpu else tensor


def nested(like: State, flat: Iterator[Tensor]) -> State:
    """Flat tensors as a state of the same nesting."""
    return next(flat) if isinstance(like, Tensor) else tuple(nested(part, flat) for part in like)


def tensor_bytes(tensor: Tensor) -> bytes:
    """The bytes of a tensor's numbers."""
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
