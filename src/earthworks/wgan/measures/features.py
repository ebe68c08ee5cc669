"""Feature extractors for images, each with a name and a digest of its weights or code, without which a Fréchet distance
is
meaningless: `frechet[classifier@1a2b3c]` and `frechet[pixels]` are different numbers of the same images."""

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from earthworks.runs import EarthworksError

BATCH = 500


@dataclass(frozen=True, eq=False)
class Extractor:
    """Maps samples (n, *shape) to features (n, d), in batches, without gradients.

    Samples are floats on the common scale of generator and data. `digest` is the SHA-256 of the weights or code that
    determine the features (empty where the name does).
    """

    name: str
    digest: str
    compute: Callable[[Tensor], Tensor]

    def __str__(self) -> str:
        return f"{self.name}@{self.digest[:6]}" if self.digest else self.name

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Tensor:
        """Features (n, d) in float32. Raises EarthworksError for integers, no samples, and features that are not (n, d)
        and finite."""
        if not samples.is_floating_point() or not len(samples):
            raise EarthworksError(
                f"samples of shape {tuple(samples.shape)}, {samples.dtype}: expected floats on the generator's scale"
            )
        found = [self.compute(batch) for batch in samples.split(BATCH)]
        for batch, part in zip(samples.split(BATCH), found):
            if not isinstance(part, Tensor) or part.ndim != 2 or len(part) != len(batch):
                shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise EarthworksError(
                    f"{self} returned {shape} for {len(batch)} samples; expected one row of features for each"
                )
        features = torch.cat(found).float()
        if not features.isfinite().all():
            raise EarthworksError(f"{self} returned features that are NaN or infinite")
        return features


def pixels() -> Extractor:
    """Extractor of the values themselves, flattened."""
    return Extractor("pixels", "", lambda samples: samples.flatten(1))


def pca(real: Tensor, dims: int = 64) -> Extractor:
    """The first `dims` principal components of the real samples (n, *shape), on their own scale (not whitened), so that
    distances are at most those of pixels. Signs are fixed by the largest entry. O(n d^2 + d^3).

    `dims` is lowered to the d values a sample has. Raises EarthworksError for n <= dims: the last components would be
    noise.
    """
    flat = real.detach().flatten(1).double()
    dims = min(dims, flat.shape[1])
    if not 1 <= dims < len(flat):
        raise EarthworksError(
            f"{dims} principal components of {len(flat)} samples: expected at least 1, and fewer than samples"
        )
    mean = flat.mean(0)
    components = torch.linalg.eigh((flat - mean).T @ (flat - mean)).eigenvectors.flip(1)[:, :dims]
    components = components * components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
    mean, components = mean.float(), components.float().contiguous()
    return Extractor(
        f"pca-{dims}", digest_of([mean, components]), lambda samples: (samples.flatten(1) - mean) @ components
    )


def custom(path: str) -> Extractor:
    """Extractor from `module:name`, a callable from a batch (b, *shape) to features (b, d); the working folder is
    searched first.

    A torch module is put into evaluation mode, and its digest is that of its tensors; a function's is that of its source.
    Raises EarthworksError where there is no such callable.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise EarthworksError(f"features {path!r}: expected module:function, such as my_features:embed")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # any fault of the file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EarthworksError(f"features {path!r}: {module} cannot be imported ({reason})") from None
    finally:
        sys.path.remove(os.getcwd())
    found = getattr(found, name, None)
    if not callable(found):
        raise EarthworksError(f"features {path!r}: {module} has no function {name}")
    compute: Any = found.eval() if isinstance(found, nn.Module) else found

    def called(batch: Tensor) -> Any:
        try:
            return compute(batch)
        except EarthworksError:
            raise
        except Exception as error:  # anything that user code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise EarthworksError(f"features {path!r} failed ({reason})", exit_code=1) from error

    if isinstance(found, nn.Module):
        return Extractor(path, digest_of(list(found.state_dict().values())), called)
    try:
        source = inspect.getsource(found)
    except (OSError, TypeError):  # compiled, or made at run time
        source = path
    return Extractor(path, hashlib.sha256(source.encode()).hexdigest(), called)


def digest_of(tensors: list[Tensor]) -> str:
    """SHA-256 over the bytes of the tensors in order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
