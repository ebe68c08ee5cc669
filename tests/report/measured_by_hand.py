"""The smallest results that have every part, as `evaluate` and `wgan evaluate` write them."""


def result(name: str, shots: int, metric: str = "accuracy") -> dict:
    return {
        **{"name": name, "category": "reading", "shots": shots, "metric": metric, "n": 12, "value": 0.5},
        **{
            "interval": [0.4, 0.6],
            "chance": 0.25,
            "majority": 0.3,
            "missing": {"a reason": 3},
            "truncated": 2,
            "split": 1,
        },
        "accuracy": {"raw": {"value": 0.5}, "per_byte": {"value": 0.6}},
    }


TASKS = {
    **{"seed": 0, "limit": 10, "window": 16, "absent": [{"name": "b", "shots": 0, "reason": "no data"}]},
    "categories": {
        "reading": {"0-shot": {"accuracy": 0.5, "chance": 0.25}, "2-shot": {"accuracy": 0.6, "chance": 0.25}}
    },
    "results": [result("a", 0), result("a", 2), result("c", 0), result("d", 0, "bits_per_byte")],
}


def finding(name: str) -> dict:
    return {
        **{
            "name": name,
            "value": 0.1,
            "interval": [0.0, 0.2],
            "p_value": 0.01,
            "p_holm": 0.03,
            "n": 9,
            "unit": "pairs",
        },
    }


FAIRNESS = {"individual_fairness": {"null_mean": 0.01}, "group_fairness": {"null_mean": 0.02}}
BIAS = {
    **{
        "correction": "Holm's correction",
        "missing": {"bbq": "no data"},
        "templates": {"attributes": {"country": FAIRNESS}},
    },
    "findings": [finding("winogender: lean"), finding("sentiment (templates), country: group fairness, W1")],
}
SCORED = {"auc": 0.8, "interval": [0.7, 0.9], "n": 50, "flagged_toxic": 0.5, "flagged_other": 0.1}
SUMMARY = {
    **{"prompts": 5, "missing": 1, "mean": 0.2, "expected_maximum": 0.4, "expected_maximum_interval": [0.3, 0.5]},
    **{"toxic_probability": 0.2, "toxic_probability_interval": [0.1, 0.3]},
}
TOXICITY = {
    **{"claim": "A claim.", "no_claim": "", "missing": ["a text"]},
    "protocol": {"num": 5, "max_tokens": 20, "top_p": 0.9, "toxic_from": 0.5},
    "prompted": {"bins_by": "the scorer", "all": SUMMARY, "bins": {"low": SUMMARY, "high": SUMMARY}},
    "scorer": {"name": "s", "held_out": SCORED, "cross_corpus": {"x": SCORED}, "hatecheck": None},
    "unprompted": {
        **{"n": 5, "mean": 0.1, "mean_interval": [0.0, 0.2], "median": 0.1, "percentile_95": 0.3, "toxic_share": 0.1},
        "toxic_share_interval": [0.0, 0.2],
    },
}
GROUP = {"subgroup": SCORED, "bpsn": SCORED, "bnsp": SCORED}
DETECTION = {
    **{"texts": 20, "data": "x.jsonl", "toxic": 10},
    "models": [{"shots": {"0": {**SCORED, "cut": 0}, "5": {**SCORED, "cut": 1}}, "subgroups": {"group": GROUP}}],
}
WGAN = {
    "measures": [
        {
            "name": "wasserstein_1",
            "value": 0.5,
            "interval": [0.4, 0.6],
            "null": 0.1,
            "kind": "distance",
            "n": 10,
            "remark": "r",
        },
        {"name": "modes", "value": 8, "interval": None, "null": None, "kind": "count", "n": None, "remark": ""},
    ]
}
