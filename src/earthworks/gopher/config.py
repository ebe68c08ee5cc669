"""Model configurations: the family's named sizes, and their parameter counts."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from earthworks.runs import EarthworksError

FAMILY = ("44M", "117M", "417M", "1.4B", "7.1B", "280B")  # Rae et al. 2021, Table 1

# name: (layers, heads, key/value size, d_model). The first six are the paper's; the animals are ours, for small machines,
# and carry no number that could be mistaken for one of the paper's models.
SIZES: dict[str, tuple[int, int, int, int]] = {
    "44M": (8, 16, 32, 512),
    "117M": (12, 12, 64, 768),
    "417M": (12, 12, 128, 1536),
    "1.4B": (24, 16, 128, 2048),
    "7.1B": (32, 32, 128, 4096),
    "280B": (80, 128, 128, 16384),
    "cricket": (2, 3, 32, 96),
    "shrew": (2, 4, 32, 128),
    "vole": (4, 4, 32, 128),
    "mole": (4, 6, 32, 192),
    "gerbil": (5, 8, 32, 256),
    "hamster": (5, 10, 32, 320),
    "rabbit": (6, 6, 64, 384),
}

# A family for a laptop: about x 2 each, from 0.24M to 6.7M without embeddings.
SMALL_FAMILY = ("cricket", "shrew", "vole", "mole", "gerbil", "hamster")

Norm = Literal["rms", "layer"]
Positions = Literal["relative", "absolute", "none"]


@dataclass(frozen=True, kw_only=True)
class GopherConfig:
    """The shape of a Gopher: GPT-2's decoder with RMSNorm and Transformer-XL relative positions (Rae et al. 2021, 2.1).

    `d_position` is the width D of the sinusoid S(distance) that each layer's W_R projects (None: `d_model`, the paper's);
    `max_distance` clamps distances (None: no limit). `norm="layer"` and the other `positions` are the
    rivals that the paper's two changes to GPT-2 are compared with. `context` is the length trained on; with relative
    positions any longer one can be read. Raises EarthworksError naming the field that is wrong.
    """

    num_layers: int
    num_heads: int
    d_head: int
    d_model: int
    vocabulary: int = 32_000
    context: int = 2048
    d_position: int | None = None
    max_distance: int | None = None
    norm: Norm = "rms"
    positions: Positions = "relative"
    tied: bool = True
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "d_head", "d_model", "vocabulary", "context"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise EarthworksError(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name in ("d_position", "max_distance"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise EarthworksError(f"{name} is {value!r}; it must be a whole number of at least 1, or nothing")
        if self.positions == "relative" and self.position_width % 2:
            raise EarthworksError(
                f"d_position is {self.position_width}; sines and cosines take half each, so make it even"
            )
        for name, choices in (("norm", get_args(Norm)), ("positions", get_args(Positions))):
            if getattr(self, name) not in choices:
                raise EarthworksError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if not isinstance(self.norm_epsilon, float) or not 0 < self.norm_epsilon < 1:
            raise EarthworksError(f"norm_epsilon is {self.norm_epsilon!r}; it must be between 0 and 1")

    @property
    def d_attention(self) -> int:
        """a = num_heads * d_head, which the paper's six sizes make equal to d_model."""
        return self.num_heads * self.d_head

    @property
    def d_feedforward(self) -> int:
        """4 d_model, in every size of the paper."""
        return 4 * self.d_model

    @property
    def position_width(self) -> int:
        """D, the width of the sinusoid."""
        return self.d_model if self.d_position is None else self.d_position

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "GopherConfig":
        """A named size, any field of it overridden: `preset("44M", vocabulary=256)`."""
        if name not in SIZES:
            raise EarthworksError(f"there is no size {name!r}; the sizes are {', '.join(SIZES)}")
        shape = dict(zip(("num_layers", "num_heads", "d_head", "d_model"), SIZES[name]))
        return cls.from_dict({**shape, **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GopherConfig":
        """From a mapping such as a run's config.yaml; an unknown key is an error that names the fields."""
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                raise EarthworksError(f"unknown GopherConfig field {key!r}; valid fields: {', '.join(names)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def with_(self, **changes: Any) -> "GopherConfig":
        """The same model with some fields changed."""
        return replace(self, **changes)

    def num_parameters(self, full: bool = True) -> int:
        """N = L (5 d a + 8 d^2) + V d: the count that gives the paper's six sizes their names (`full=False`), with a = H k,
        five attention matrices (query, key, value, output, W_R), a feed-forward of 4 d, and the tied embedding once.

        `full=True` counts everything that is built: per layer also two gains (2d), the feed-forward's biases (5d), the
        attention output's bias (d), u and v (2a); and once the final gain (d) and the logits' bias (V). Up to that final
        gain it is the only natural reading that gives all 50 integer sizes of Hoffmann et al. 2022, Table A9, which the
        same laboratory counted in the same way.
        """
        layers, d, a, vocabulary = self.num_layers, self.d_model, self.d_attention, self.vocabulary
        relative = self.positions == "relative"
        count = layers * (4 * d * a + 8 * d * d) + vocabulary * d * (1 if self.tied else 2)
        if relative:
            count += layers * self.position_width * a
        if self.positions == "absolute":
            count += self.context * d
        if not full:
            return count
        norm = d if self.norm == "rms" else 2 * d
        count += layers * (2 * norm + 5 * d + d + (2 * a if relative else 0))
        return count + norm + vocabulary

    def num_body_parameters(self) -> int:
        """Parameters without the embedding, the logits (their matrix if untied, and bias) and learned positions: the N of
        scaling laws (Kaplan et al. 2020, 2.1)."""
        outside = self.vocabulary * self.d_model * (1 if self.tied else 2) + self.vocabulary
        if self.positions == "absolute":
            outside += self.context * self.d_model
        return self.num_parameters() - outside
