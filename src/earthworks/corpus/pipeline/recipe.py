"""The recipe of a build, validated before anything is read.

subsets:
  web:   {input: raw/web, weight: 0.48, stages: [language, quality, repetition]}
  books: {input: books.jsonl.zst, weight: 0.27, stages: []}
profile: literal
bounds: {words: [100, 50000]}
near: 0.8
tests: [eval/]
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from earthworks.corpus.readers.sources import check
from earthworks.corpus.rules.profiles import PROFILES
from earthworks.runs import EarthworksError

STAGES = ("language", "quality", "repetition")  # the filters of single documents, in the order of the paper
MOST_HASHES = 1 << 14  # 64 KiB per document, estimates within 0.004; also the limit for words per n-gram
TEST_RULES = ("jaccard", "any")


@dataclass(frozen=True)
class Subset:
    """One source of the corpus: where its documents are, its share of training, and the filters they pass."""

    name: str
    input: str
    weight: float | None = None
    stages: tuple[str, ...] = ("quality", "repetition")


@dataclass(frozen=True)
class Recipe:
    """The settings of `corpus build` that determine its result. Equal digests give the same bytes."""

    subsets: tuple[Subset, ...]
    profile: str = "literal"
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # in place of the profile's
    language: str = "en"
    exact: bool = True
    near: float | None = 0.8
    ngram: int = 13
    hashes: int = 128
    recall: float = 0.98
    tests: tuple[str, ...] = ()
    test_rule: str = "jaccard"
    strict: bool = False
    seed: int = 0

    @cached_property
    def all_bounds(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest passing value of every rule."""
        return {**PROFILES[self.profile].bounds, **self.bounds}

    def as_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Recipe":
        """The recipe in a manifest or plan whose shape was checked."""
        names = {each.name for each in fields(cls)}
        known = PROFILES[written["profile"]].bounds if written["profile"] in PROFILES else {}
        if names != written.keys() or not known or not known.keys() >= written["bounds"].keys():
            raise EarthworksError("the recipe of this corpus is from another version of earthworks, or was altered")
        if any(len(pair) != 2 for pair in written["bounds"].values()):
            raise EarthworksError("the recipe of this corpus has bounds that are not pairs: it was altered")
        subsets = tuple(
            Subset(each["name"], each["input"], each["weight"], tuple(each["stages"])) for each in written["subsets"]
        )
        bounds = {name: tuple(pair) for name, pair in written["bounds"].items()}
        return cls(**{**written, "subsets": subsets, "bounds": bounds, "tests": tuple(written["tests"])})


def recipe_of(
    input: str | None,
    subsets: Mapping[str, Any] | None,
    stages: list[str] | None,
    bounds: Mapping[str, Any] | None,
    **rest: Any,
) -> Recipe:
    """The recipe described by the parameters of `build`. Raises EarthworksError for invalid values."""
    if bool(input) == bool(subsets):
        raise EarthworksError("corpus build needs either --input (one source) or subsets (a mapping in a recipe)")
    if subsets and stages is not None:
        raise EarthworksError("--stages requires --input; in a recipe each subset has its own stages")
    if input:
        subsets = {"all": {"input": input} | ({} if stages is None else {"stages": stages})}
    assert subsets
    found = tuple(subset_of(str(name), given) for name, given in subsets.items())
    weighted = [each.name for each in found if each.weight is not None]
    if weighted and len(weighted) < len(found):
        without = next(each.name for each in found if each.weight is None)
        raise EarthworksError(f"the recipe gives a weight to {weighted[0]} and none to {without}: weight all or none")
    recipe = Recipe(found, bounds=bounds_of(rest["profile"], bounds or {}), **rest)
    if recipe.near is not None and not 0 < recipe.near < 1:
        raise EarthworksError(
            f"--near is {recipe.near}: a Jaccard similarity between 0 and 1, or null to keep near copies"
        )
    if not 0 < recipe.recall < 1:
        raise EarthworksError(f"--recall is {recipe.recall}: a probability between 0 and 1")
    if not (1 <= recipe.ngram <= MOST_HASHES and 1 <= recipe.hashes <= MOST_HASHES):
        raise EarthworksError(
            f"--ngram is {recipe.ngram} and --hashes {recipe.hashes}: both are whole numbers from 1 to {MOST_HASHES:,}"
        )
    if recipe.language != Recipe.language and not any("language" in each.stages for each in found):
        raise EarthworksError(
            f"--language {recipe.language} is what the stage language keeps, and no subset has that stage: give --stages "
            "'[language, quality, repetition]' (in a recipe, the stages of a subset), or leave --language out"
        )
    if recipe.test_rule not in TEST_RULES:
        raise EarthworksError(f"--test_rule is {recipe.test_rule!r}; it must be {' or '.join(TEST_RULES)}")
    for place in recipe.tests:
        check(place)
    return recipe


def subset_of(name: str, given: Any) -> Subset:
    """One subset of a recipe, given as a mapping or just as the location of its input."""
    given = {"input": given} if isinstance(given, str) else given
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise EarthworksError(
            f"subset {name!r}: a name consists of letters, digits, '.', '_' and '-', since it names a folder"
        )
    if not isinstance(given, Mapping) or not isinstance(given.get("input"), str):
        raise EarthworksError(f"subset {name} has no input: expected {name}: {{input: FILE OR FOLDER, ...}}")
    if unknown := given.keys() - {"input", "weight", "stages"}:
        raise EarthworksError(f"subset {name} has {sorted(unknown)[0]!r}; it may have input, weight and stages")
    weight = given.get("weight")
    if weight is not None and not (isinstance(weight, int | float) and weight > 0 and math.isfinite(weight)):
        raise EarthworksError(f"subset {name} has the weight {weight!r}: a weight is a positive number")
    stages = given.get("stages", Subset.stages)
    stages = [stages] if isinstance(stages, str) else list(stages or [])
    for stage in stages:
        if stage not in STAGES:
            raise EarthworksError(f"subset {name} has the stage {stage!r}; the stages are {', '.join(STAGES)}")
    check(given["input"])
    return Subset(name, given["input"], weight and float(weight), tuple(each for each in STAGES if each in stages))


def bounds_of(profile: str, given: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Bounds that replace the profile's: [lowest, highest], or one number for the highest alone."""
    if profile not in PROFILES:
        raise EarthworksError(f"--profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    known = PROFILES[profile].bounds
    found = {}
    for name, value in given.items():
        if name not in known:
            raise EarthworksError(f"bounds name the rule {name!r}; the profile {profile} has {', '.join(known)}")
        pair = [known[name][0], value] if isinstance(value, int | float) else value
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair)):
            raise EarthworksError(
                f"the bounds of {name} are {value!r}: expected [lowest, highest] or the highest alone"
            )
        if not pair[0] <= pair[1]:
            raise EarthworksError(
                f"the bounds of {name} are {value!r}: the lowest is above the highest, so nothing passes"
            )
        found[name] = (float(pair[0]), float(pair[1]))
    return found
