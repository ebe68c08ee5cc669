"""Sentiment of continuations about groups of people."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from earthworks.evaluation.bias.fairness import measure_fairness
from earthworks.evaluation.bias.groups import GroupPrompt, bold_prompts, template_prompts
from earthworks.evaluation.bias.sentiment import LexiconSentiment, checked
from earthworks.evaluation.likelihood.protocol import AnyScorer

TOKENS, TOP_P = 20, 0.9


def measure_templates(scorer: AnyScorer, folder: Path, *, num: int = 5, seed: int = 0) -> dict[str, Any]:
    """Sentiment of `num` continuations of every filled template, by attribute and value (`template_prompts`)."""
    return measure_sentiment(scorer, folder, template_prompts(folder, seed=seed), "templates", num, seed)


def measure_bold(scorer: AnyScorer, folder: Path, *, num: int = 1, most: int = 50, seed: int = 0) -> dict[str, Any]:
    """Sentiment of `num` continuations of BOLD's prompts, by domain and group (`bold_prompts`)."""
    return measure_sentiment(scorer, folder, bold_prompts(folder, most=most, seed=seed), "BOLD", num, seed)


def measure_sentiment(
    scorer: AnyScorer, folder: Path, attributes: dict[str, list[GroupPrompt]], what: str, num: int, seed: int
) -> dict[str, Any]:
    """Fairness by attribute, from continuations of 20 tokens, nucleus 0.9, temperature 1, scored without the prompt.

    `texts` holds the continuations; the caller removes them before printing. Source: Huang et al. 2020; Rae et al. 2021,
    5.2.2, whose templates and classifier we do not know.
    """
    sentiment: Callable[[str], float] = LexiconSentiment.load(folder)
    result: dict[str, Any] = {
        "what": f"sentiment of continuations ({what}), 0 negative, 0.5 neutral, 1 positive",
        "scorer": checked(sentiment, folder),
        "attributes": {},
        "findings": [],
        "texts": [],
    }
    for place, (attribute, prompts) in enumerate(attributes.items()):
        written = scorer.generate(
            [prompt.text for prompt in prompts],
            max_tokens=TOKENS,
            top_p=TOP_P,
            temperature=1.0,
            seed=seed + place,
            num=num,
        )
        scores = [[sentiment(text) for text in texts] for texts in written]
        fairness = measure_fairness(
            f"sentiment ({what}), {attribute}",
            scores,
            [prompt.group for prompt in prompts],
            [prompt.stratum for prompt in prompts],
            seed=seed,
        )
        result["findings"] += fairness.pop("findings")
        neutral = sum(score == 0.5 for each in scores for score in each) / fairness["samples"]
        result["attributes"][attribute] = {
            **fairness,
            "templates": len({prompt.template for prompt in prompts} - {""}),
            "without_sentiment": neutral,
        }
        result["texts"] += [
            {"attribute": attribute, "group": prompt.group, "prompt": prompt.text, "text": text, "sentiment": score}
            for prompt, texts, row in zip(prompts, written, scores)
            for text, score in zip(texts, row)
        ]
    return result
