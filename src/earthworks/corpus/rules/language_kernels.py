"""Compiled byte n-gram classifier behind language.py."""

import numpy as np

from earthworks.compilation import compiled


@compiled
def log_posteriors(data, offsets, moves, rows, features, weights, priors, scores, met):
    """Write log-posteriors of all languages, unnormalised, to `scores` (documents, languages), feature counts to `met`."""
    counts, seen = np.zeros(len(weights), np.int64), np.empty(len(weights), np.int64)
    for document in range(len(offsets) - 1):
        state, num_seen = np.int64(0), 0
        for at in range(offsets[document], offsets[document + 1]):
            state = np.int64(moves[np.int64(rows[state]) * 256 + np.int64(data[at])])
            feature = features[state]
            if feature >= 0:
                if counts[feature] == 0:
                    seen[num_seen] = feature
                    num_seen += 1
                counts[feature] += 1
        met[document] = num_seen
        row = scores[document]
        row[:] = priors
        for k in range(num_seen):
            weight = np.float32(np.log1p(float(counts[seen[k]])))
            counts[seen[k]] = 0
            each = weights[seen[k]]
            for language in range(len(row)):
                row[language] += weight * each[language]
