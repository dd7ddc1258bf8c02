"""What can be known of a pickle without running it.

Foreign models hold a few things only as pickles: spaces, normalization statistics, keyword arguments. They are read by
an unpickler whose table of names is literal and short. NumPy arrays are built here from their bytes; every other name
in the table gives an inert :class:`Record`. Any other name ends the reading: nothing of it is imported, or called.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rlrun.errors import UsageError

MAX_BYTES, MAX_NODES = 64 * 2**20, 100_000


class ForbiddenName(UsageError):
    """A pickle asks for something that is not in the table.

    :ivar name: ``module.name``
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{what} holds a pickle that asks for {name}.", "Reading it would run code of its author.")
        self.name = name


class Record:
    """Stands for an object of a class: its name, what it was made with, and its state. It can do nothing.

    :ivar name: ``module.Class``
    """

    name = ""
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> Record:
        """Pickles make objects without ``__init__``."""
        record = super().__new__(cls)
        record.arguments = arguments
        return record

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, key: str, default: Any = None) -> Any:
        """A value of its state."""
        return self.state.get(key, default) if isinstance(self.state, dict) else default


class Name:
    """Stands for a class or function that is only referred to, such as an activation function.

    :ivar name: ``module.Name``
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a name has no state")


class _Call:
    """A function of this module in a form that a pickle can call and not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


class _DType(Record):
    name = "numpy.dtype"

    def plain(self) -> np.dtype[Any]:
        """The dtype, if it is one of plain numbers."""
        code = str(self.arguments[0])
        if not ((code[:1] in "biuf?" and code[1:].isdigit()) or code == "?"):
            raise pickle.UnpicklingError(f"arrays of dtype {code[:20]} are not read")
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(code).newbyteorder(">" if order == ">" else "<" if order == "<" else "=")


class _Array(Record):
    """An array whose content comes with its state."""

    name = "numpy.ndarray"
    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, in_fortran_order, content = state
        if isinstance(content, bytes):
            self.value = _array(content, dtype, shape, "F" if in_fortran_order else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array without a dtype or content")
    return np.frombuffer(bytes(content), dtype.plain()).reshape(shape, order="F" if order == "F" else "C").copy()


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, ())[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    return str(text).encode("latin1")  # how old protocols write bytes


def _record(name: str) -> type[Record]:
    return type("Record", (Record,), {"name": name})


_ACTIVATIONS = ("ReLU", "Tanh", "ELU", "GELU", "SELU", "SiLU", "Mish", "LeakyReLU", "Sigmoid", "Softplus")
_SPACES = {"box": "Box", "discrete": "Discrete", "multi_discrete": "MultiDiscrete", "multi_binary": "MultiBinary"}
_SPACES |= {"dict": "Dict", "tuple": "Tuple"}
_GENERATORS = ("__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor")
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop"}

# Objects that become records: spaces (of Gymnasium and of Gym), their random generators, running moments.
_RECORDS = {
    *(f"{gym}.spaces.{module}.{name}" for gym in ("gymnasium", "gym") for module, name in _SPACES.items()),
    *(f"numpy.random._pickle.{name}" for name in _GENERATORS),
    *("numpy.random._pcg64.PCG64", "numpy.random._mt19937.MT19937", "numpy.random.bit_generator.SeedSequence"),
    "numpy.random.bit_generator.SeedlessSeedSequence",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "stable_baselines3.common.running_mean_std.RunningMeanStd",
    "stable_baselines3.common.vec_env.vec_normalize.VecNormalize",
}
# Classes that keyword arguments refer to.
_NAMES = {
    *(f"torch.nn.modules.activation.{name}" for name in _ACTIVATIONS),
    *(f"torch.optim.{module}.{name}" for module, name in _OPTIMIZERS.items()),
    "stable_baselines3.common.sb2_compat.rmsprop_tf_like.RMSpropTFLike",
    *(f"stable_baselines3.common.torch_layers.{n}" for n in ("NatureCNN", "FlattenExtractor", "CombinedExtractor")),
    *(f"numpy.{kind}{bits}" for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)),
    *("numpy.bool", "numpy.bool_"),
}
# What is built for real: containers, and arrays from their bytes.
_BUILT: dict[str, Any] = {
    **{f"numpy.{core}.multiarray._reconstruct": _Call(lambda *_: _Array()) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Call(_scalar) for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Call(_array) for core in ("core", "_core")},
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "_codecs.encode": _Call(_encode),
    "collections.OrderedDict": OrderedDict,
    "collections.deque": deque,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, what: str) -> None:
        super().__init__(io.BytesIO(content))
        self._what = what

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _BUILT:
            return _BUILT[full]
        if full in _RECORDS:
            return _record(full)
        if full in _NAMES:
            return Name(full)
        raise ForbiddenName(full, self._what)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("references to elsewhere are not followed")


def read_pickle(content: bytes, what: str) -> Any:
    """The value of a pickle, as plain containers, arrays, records and names.

    :param what: where it stands, for errors
    :raises ForbiddenName: when it asks for anything that is not in the table
    :raises UsageError: when it is damaged
    """
    if len(content) > MAX_BYTES:
        raise UsageError(f"{what} is {len(content):,} bytes long, and no more than {MAX_BYTES:,} are read.")
    try:
        return _Plain().of(_Unpickler(content, what).load())
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle makes the machine raise nearly anything
        raise UsageError(f"{what} is no whole pickle ({type(error).__name__}: {str(error)[:100]}).") from None


class _Plain:
    """Puts arrays in place of the records that carry them, in no more than ``MAX_NODES`` parts.

    What a pickle refers to twice is gone through twice: a few bytes can mean a tree without end.
    """

    def __init__(self) -> None:
        self._nodes = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        self._nodes += 1
        if depth > 50 or self._nodes > MAX_NODES:
            raise pickle.UnpicklingError("nested too deeply")
        if isinstance(value, _Array):
            return value.value
        if isinstance(value, Mapping):
            return {key: self.of(item, depth + 1) for key, item in value.items() if isinstance(key, str | int | float)}
        if isinstance(value, list | tuple | deque):
            return type(value)(self.of(item, depth + 1) for item in value)
        if isinstance(value, Record) and not isinstance(value, _DType):
            value.state = self.of(value.state, depth + 1)
            value.arguments = tuple(self.of(item, depth + 1) for item in value.arguments)
        return value


# What stands for a name in a list of names where none can be given.
COMPUTED, UNREAD = "a name that only running it would give", "a rest that is damaged or too long"
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING")
_NEUTRAL = ("PROTO", "FRAME")  # they leave the stack as it is


def names_in_pickle(content: bytes) -> list[str]:
    """Every name that a pickle would import, as ``module.name``; nothing of it is run or imported.

    What cannot be known without running it is :data:`COMPUTED`, what cannot be read at all :data:`UNREAD`; neither is
    a name that :func:`is_known` knows.
    """
    names: dict[str, None] = {}
    pushed: list[str | None] = []  # the newest things on the stack, where they are texts
    memo: dict[int, str | None] = {}
    end = 0
    try:
        opcodes: Iterable[tuple[Any, Any, int | None]] = pickletools.genops(content[:MAX_BYTES])
        for opcode, argument, position in opcodes:
            newest = pushed[-1] if pushed else None
            end = (position or 0) + 1
            if opcode.name in _TEXTS:
                pushed.append(str(argument))
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = newest
            elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = newest
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                pushed.append(memo.get(argument))
            elif opcode.name in ("GLOBAL", "INST"):
                names[str(argument).replace(" ", ".")] = None
                pushed = []
            elif opcode.name == "STACK_GLOBAL":
                module, name = (None, *pushed)[-2:] if pushed else (None, None)
                names[f"{module}.{name}" if module is not None and name is not None else COMPUTED] = None
                pushed = []
            elif opcode.name in ("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"):
                names[COMPUTED] = None
                pushed = []
            elif opcode.name not in _NEUTRAL:
                pushed = []
    except Exception:  # whatever a damaged pickle makes pickletools raise
        end = -1
    if end != len(content):
        names[UNREAD] = None
    return list(names)


def is_known(name: str) -> bool:
    """Whether a name is in the table."""
    return name in _BUILT or name in _RECORDS or name in _NAMES
