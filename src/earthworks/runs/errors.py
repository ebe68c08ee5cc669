"""The one error class of the package: a sentence for the person at the keyboard."""


class EarthworksError(ValueError):
    """What was given, what was expected, what to do: one sentence, shown without a traceback.

    `exit_code` is 2 for a mistake of the user (the default) and 1 for work that failed, such as a full disk.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


def missing_extra(package: str, extra: str, purpose: str) -> EarthworksError:
    """The sentence for an optional dependency that is needed now and is not installed."""
    return EarthworksError(f"{purpose} needs the package {package}: pip install 'earthworks[{extra}]'")
