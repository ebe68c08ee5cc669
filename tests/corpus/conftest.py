import argparse
import inspect
import json
import textwrap

import pytest

from earthworks.corpus import Tokenizer

WORLD = "Ελληνικά κείμενα, русские тексты, 日本語の文章、한국어 문장, café naïve Straße; ﬁne ½ ①. "


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """English, Python, and a little of other scripts: 150 kB."""
    return [inspect.getsource(module) for module in (argparse, json, textwrap)] + [WORLD * 20, "\tx\r\n" * 50]


@pytest.fixture(scope="session")
def bpe(texts) -> Tokenizer:
    return Tokenizer.train(texts, 1200)


@pytest.fixture(scope="session", params=["bpe", "bytes"])
def tokenizer(request, bpe) -> Tokenizer:
    return bpe if request.param == "bpe" else Tokenizer.bytes()
