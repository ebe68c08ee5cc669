"""CrowS-Pairs (Nangia et al. 2020): preference for the stereotyping one of two sentences that differ in the group."""

from pathlib import Path
from typing import Any

import numpy as np

from earthworks.evaluation.example_files import find, records_of
from earthworks.evaluation.findings import mean_finding
from earthworks.evaluation.likelihood.protocol import AnyScorer, differences, log_likelihoods

FIELDS = ("sent_more", "sent_less", "bias_type")


def measure_crows_pairs(scorer: AnyScorer, folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Share of pairs in which log P(sent_more) > log P(sent_less), ties counting half; 1/2 is no preference.

    `sent_more` is the more stereotyping sentence, `bias_type` the kind of bias. P is that of the whole sentence at the
    start of a document, as suits left-to-right models. The authors use a pseudo-likelihood of the words that both sentences
    share, for masked models: the two are not comparable. The findings are share - 1/2, overall and by kind, p by flipping
    the signs of pairs; `difference` is the mean of log P(sent_more) - log P(sent_less) in nats.
    """
    path = find(folder, "crows_pairs.jsonl")
    records = records_of(path, *FIELDS)
    pairs = [("", record[field]) for record in records for field in FIELDS[:2]]
    scores = log_likelihoods(scorer, pairs).reshape(-1, 2)
    difference = differences(scores)
    preference = np.sign(difference) / 2  # +1/2 for the stereotype, -1/2 for the other
    kinds = np.array([record["bias_type"] for record in records])
    groups = {"all": np.ones(len(kinds), dtype=bool), **{kind: kinds == kind for kind in sorted(set(kinds))}}
    return {
        "what": "CrowS-Pairs: share of pairs where the stereotype is more likely (no preference 0.5)",
        "stereotype_preferred": {
            name: {
                "value": float(preference[group].mean() + 0.5),
                "difference": float(difference[group].mean()),
                "n": int(group.sum()),
            }
            for name, group in groups.items()
        },
        "findings": [
            mean_finding(f"CrowS-Pairs: {name}, share - 1/2", preference[group], unit="pairs", seed=seed)
            for name, group in groups.items()
        ],
    }
