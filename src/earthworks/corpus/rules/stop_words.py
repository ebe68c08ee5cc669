"""Stop words of several languages: counterparts of the eight of Rae et al. 2021.

In the paper's order: the, be, to, of, and, that, have, with. The choices are ours; for `rule_values(stop_words=...)`.
"""

from earthworks.corpus.rules.quality import STOP_WORDS as ENGLISH

STOP_WORDS: dict[str, tuple[str, ...]] = {
    "en": ENGLISH,
    "de": ("die", "sein", "zu", "von", "und", "dass", "haben", "mit"),
    "fr": ("le", "être", "à", "de", "et", "que", "avoir", "avec"),
    "es": ("el", "ser", "a", "de", "y", "que", "haber", "con"),
    "it": ("il", "essere", "a", "di", "e", "che", "avere", "con"),
    "pt": ("o", "ser", "a", "de", "e", "que", "ter", "com"),
    "nl": ("de", "zijn", "te", "van", "en", "dat", "hebben", "met"),
}
